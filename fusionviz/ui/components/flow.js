// The flow: the trace of a method as a graph. Positions come from Python; here they are drawn and can be asked.
const SVG = 'http://www.w3.org/2000/svg';

function element(name, attributes, ...children) {
  const node = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  node.append(...children);
  return node;
}

export default function ({ data, parentElement, setTriggerValue }) {
  const root = parentElement.querySelector('.flow');
  const { layout, nodes, texts, colours } = data;
  root.querySelector('.title').textContent = texts.title;
  root.querySelector('.sum').textContent = texts.sum;
  const ask = root.querySelector('.ask');
  ask.textContent = texts.ask;
  ask.disabled = false;
  ask.onclick = () => { ask.disabled = true; setTriggerValue('asked', Date.now()); };

  const svg = element('svg', {
    viewBox: `0 0 ${layout.width} ${layout.height}`, role: 'img', 'aria-label': texts.title,
    // Never smaller than what can be read from a seat: a wide graph scrolls instead.
    style: `max-width:${Math.round(layout.width * 1.25)}px;min-width:${Math.round(layout.width * 0.74)}px`,
  });
  for (const edge of layout.edges) {
    svg.append(element('path', { d: edge.path, class: 'edge', 'data-from': edge.from, 'data-to': edge.to }));
  }
  const groups = new Map();
  for (const node of nodes) {
    const [x, y, w, h] = layout.boxes[node.key];
    const group = element('g', { class: 'node', tabindex: 0, transform: `translate(${x} ${y})` });
    const colour = colours[node.role];
    const box = element('rect', { width: w, height: h, rx: 5 });
    if (colour) box.style.stroke = colour;
    group.append(box);
    const lines = [[node.title, 'name'], [node.formula, 'formula'], [node.shape, 'fine'], ...node.costs.map((c) => [c, 'fine'])];
    lines.filter(([line]) => line).forEach(([line, kind], i) => {
      const text = element('text', { x: 8, y: 14 + 12.5 * i, class: kind });
      text.textContent = line;
      if (i === 0 && colour) text.style.fill = colour;
      group.append(text);
    });
    const tip = element('title', {});
    tip.textContent = node.tip;
    group.append(tip);
    const light = (on) => () => {
      for (const path of svg.querySelectorAll('.edge')) {
        const mine = path.dataset.from === node.key || path.dataset.to === node.key;
        path.classList.toggle('lit', on && mine);
      }
    };
    group.onmouseenter = light(true);
    group.onfocus = light(true);
    group.onmouseleave = light(false);
    group.onblur = light(false);
    groups.set(node.key, group);
    svg.append(group);
  }
  root.querySelector('.graph').replaceChildren(svg);
}
