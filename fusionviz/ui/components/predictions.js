// What the features know. Classes and errors are both here: changing between them asks nobody.
function element(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [key, value] of Object.entries(attributes)) if (value) node.setAttribute(key, value);
  node.append(...children);
  return node;
}

function image(source, alt, view) {
  // Decoded before it is shown: a row that is drawn anew does not blink.
  return element('img', { src: source, alt, decoding: 'sync', 'data-in': view });
}

function figure(drawn) {
  const views = drawn.wrong ? ['classes', 'wrong'] : [''];
  const name = element('span', { style: `color:${drawn.colour}` }, drawn.name);
  const scores = drawn.figures ? views.map((view) => element('b', { 'data-in': view }, drawn.figures[view])) : [];
  return element('figure', { title: drawn.tip },
    ...views.map((view) => image(drawn[view || 'classes'], drawn.name, view)), element('figcaption', {}, name, ...scores));
}

function legend(chips, view) {
  return element('div', { class: 'legend', 'data-in': view }, ...chips.map((chip) =>
    element('span', { title: chip.tip }, element('i', { style: `background:${chip.colour}` }), chip.name)));
}

function tell(root, data) {
  const buttons = data.views.map(({ key, label }) => {
    const button = element('button', { type: 'button', 'data-view': key }, label);
    button.onclick = () => choose(root, key);
    return button;
  });
  const views = data.views.map(({ key }) => key);
  const top = element('div', { class: 'top' }, element('strong', {}, data.title));
  if (views.length > 1) top.append(element('div', { class: 'views', role: 'group', 'aria-label': data.title }, ...buttons));
  const stack = element('div', { class: 'stack' },
    ...views.flatMap((view) => [element('p', { 'data-in': view }, data.notes[view]), legend(data.legends[view], view)]));
  return element('div', { class: 'tell' }, top, stack);
}

function choose(root, view) {
  root.dataset.view = view;
  for (const button of root.querySelectorAll('.views button')) button.setAttribute('aria-pressed', button.dataset.view === view);
}

function exchange(told, asked) {
  const ask = element('button', { type: 'button', class: 'ask' }, told.ask);
  ask.onclick = () => { ask.disabled = true; asked(); };
  if (!told.figure) {
    const said = element('div', { class: 'words' }, element('strong', {}, told.title), element('p', {}, told.about), ask);
    return element('div', { class: 'exchange' }, said);
  }
  const { other, figures, flat, same } = told;
  const from = element('figure', { class: 'other' }, image(other.picture, other.name), image(other.weight, other.tip),
    element('figcaption', {}, element('span', {}, other.name)));
  from.lastElementChild.previousElementSibling.title = other.tip;
  const said = element('div', { class: 'words' }, element('p', {}, figures.unit),
    element('span', { class: 'from_to' }, figures.from_to), element('span', { class: 'change' }, figures.change));
  if (same) said.append(element('p', {}, same));
  if (flat) said.append(element('p', { title: flat.tip }, flat.text));
  said.append(ask);
  return element('div', { class: 'exchange' }, from, figure(told.figure), said);
}

export default function ({ data, parentElement, setTriggerValue }) {
  const root = parentElement.querySelector('.knows');
  const row = [tell(root, data), ...data.figures.map(figure)];
  if (data.exchange) row.push(exchange(data.exchange, () => setTriggerValue('exchange', Date.now())));
  root.replaceChildren(...row);
  choose(root, data.views.some(({ key }) => key === root.dataset.view) ? root.dataset.view : 'classes');
}
