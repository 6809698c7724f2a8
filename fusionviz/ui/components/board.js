// The board: low, high, weight and fused beside the picture, linked place by place. Everything that answers the
// pointer (hover, zoom, enlarge, colours, ranges) happens here and costs the server nothing; only a pin and a changed
// setting travel back. `SHARED` (colour maps and role colours of fusionviz.scales) is put before this file.

const { luts: LUTS, roles: ROLE_COLOURS, branches: BRANCH_COLOURS, pin: PIN_COLOUR, inks: INKS, none: NO_NUMBER } = SHARED;
const FIXED = { weight: [0, 1], gate: [0, 1], phase: [-Math.PI, Math.PI] };
const MAX_ZOOM = 32;
const VIEW_FIELDS = ["pin", "pin_channel", "colormap", "gamma", "range", "aligned", "frame"];

// ---------------------------------------------------------------------------------------------
// Numbers as people read them
// ---------------------------------------------------------------------------------------------

const MINUS = "\u2212";
const SUPERSCRIPTS = "⁰¹²³⁴⁵⁶⁷⁸⁹";

/** Three significant digits, and no more decimals than `step`, the map's resolution, supports. */
function number(value, step = 0, strip = false) {
  if (!Number.isFinite(value)) return { text: "–", value: NaN, decimals: 0, exponent: false };
  let a = Math.abs(value);
  if (a <= step * 0.5) [value, a] = [0, 0]; // an exact zero of a signed map does not survive 16 bits, so it is restored
  if (a === 0) return { text: "0", value: 0, decimals: 2, exponent: false };
  const rounded = Number(value.toPrecision(3));
  a = Math.abs(rounded);
  if (a >= 1e5 || a < 1e-3) {
    const [mantissa, power] = value.toExponential(2).split("e");
    const digits = [...String(Math.abs(Number(power)))].map((d) => SUPERSCRIPTS[d]).join("");
    const short = strip ? String(Number(mantissa)) : mantissa;
    const text = `${short}×10${Number(power) < 0 ? "⁻" : ""}${digits}`.replace("-", MINUS);
    return { text, value: rounded, decimals: 2, exponent: true };
  }
  let decimals = Math.max(0, 2 - Math.floor(Math.log10(a)));
  if (step > 0) decimals = Math.min(decimals, Math.max(0, Math.floor(-Math.log10(step))));
  let text = value.toFixed(decimals);
  const shown = Number(text);
  if (strip && text.includes(".")) text = text.replace(/\.?0+$/, "");
  if (shown === 0) text = "0";
  return { text: text.replace("-", MINUS), value: shown, decimals, exponent: false };
}

const same = (a, b, shown) =>
  shown.exponent ? a.toExponential(2) === b.toExponential(2) : Math.abs(a - b) < 0.5000001 * 10 ** -shown.decimals;

const fill = (template, values) => template.replace(/\{(\w+)\}/g, (whole, name) => values[name] ?? whole);

// ---------------------------------------------------------------------------------------------
// The equation for one element
// ---------------------------------------------------------------------------------------------

/** Parse the right-hand side of a template such as `{a} · {x} + (1 − {a}) · {y}`; null where it is no arithmetic. */
function parse(text) {
  const tokens = text.match(/\{\w+\}|\d+(?:\.\d+)?|[A-Za-z]+|\S/g) ?? [];
  let at = 0;
  const peek = () => tokens[at];
  const take = (...wanted) => (wanted.includes(peek()) ? tokens[at++] : null);
  const need = (wanted) => {
    if (!take(wanted)) throw new SyntaxError(wanted);
  };
  const FUNCTIONS = {
    max: Math.max, min: Math.min, exp: Math.exp, tanh: Math.tanh, sqrt: Math.sqrt, abs: Math.abs,
    relu: (v) => Math.max(v, 0), sigmoid: (v) => 1 / (1 + Math.exp(-v)), σ: (v) => 1 / (1 + Math.exp(-v)),
  };
  const sum = () => {
    let left = product();
    for (let op; (op = take("+", "−", "-", "–")); ) {
      const [l, r] = [left, product()];
      left = op === "+" ? (env) => l(env) + r(env) : (env) => l(env) - r(env);
    }
    return left;
  };
  const product = () => {
    let left = power();
    for (let op; (op = take("·", "×", "*", "⊙", "⊗", "/")); ) {
      const [l, r] = [left, power()];
      left = op === "/" ? (env) => l(env) / r(env) : (env) => l(env) * r(env);
    }
    return left;
  };
  const power = () => {
    const base = atom();
    return take("²") ? (env) => base(env) ** 2 : base;
  };
  const atom = () => {
    const token = tokens[at++];
    if (token === undefined) throw new SyntaxError("end");
    if (token === "−" || token === "-" || token === "–") {
      const inner = power();
      return (env) => -inner(env);
    }
    if (token === "(") {
      const inner = sum();
      need(")");
      return inner;
    }
    if (token === "|") {
      const inner = sum();
      need("|");
      return (env) => Math.abs(inner(env));
    }
    if (token === "√") {
      const inner = atom();
      return (env) => Math.sqrt(inner(env));
    }
    if (token.startsWith("{")) {
      const name = token.slice(1, -1);
      return (env) => env[name];
    }
    if (/^\d/.test(token)) return () => Number(token);
    if (FUNCTIONS[token] && take("(")) {
      const inner = [sum()];
      while (take(",")) inner.push(sum());
      need(")");
      return (env) => FUNCTIONS[token](...inner.map((f) => f(env)));
    }
    throw new SyntaxError(token);
  };
  try {
    const root = sum();
    return at === tokens.length ? root : null;
  } catch {
    return null;
  }
}

/** A factor of exactly 1 is noise in the spoken equation: drop it, and brackets that then hold the whole side. */
function simplify(template, constants) {
  let [left, right] = splitEquation(template);
  for (const [name, value] of Object.entries(constants)) {
    if (value === 1) right = right.replace(`{${name}} · `, "");
  }
  if (right.startsWith("(") && right.endsWith(")")) {
    let depth = 0;
    const closes = [...right].findIndex((c) => (depth += (c === "(") - (c === ")")) === 0);
    if (closes === right.length - 1) right = right.slice(1, -1);
  }
  return [left, right];
}

function splitEquation(template) {
  const cut = template.indexOf("=");
  return cut < 0 ? ["", template.trim()] : [template.slice(0, cut).trim(), template.slice(cut + 1).trim()];
}

// ---------------------------------------------------------------------------------------------
// Bytes -> maps
// ---------------------------------------------------------------------------------------------

function readHeader(bytes) {
  const length = new DataView(bytes.buffer, bytes.byteOffset, 4).getUint32(0, true);
  const header = JSON.parse(new TextDecoder().decode(bytes.subarray(4, 4 + length)));
  return { header, payload: 4 + length };
}

function decode(bytes, header, payload) {
  const raw = bytes.slice(payload).buffer; // a copy starts aligned, and outlives Streamlit's message
  return header.maps.map(({ at, h, w, lo, hi, bits, holes, rgb }) => {
    if (rgb) return { h, w, rgb: new Uint8Array(raw, at, h * w * 3) };
    const none = holes ? 2 ** bits - 1 : -1, top = 2 ** bits - (holes ? 2 : 1); // no cell of a whole map is -1
    const q = new (bits === 16 ? Uint16Array : Uint8Array)(raw, at, h * w);
    return { h, w, lo, hi, top, none, holes, q, step: (hi - lo) / top };
  });
}

const valueAt = (m, i) => (m.q[i] === m.none ? NaN : m.lo + (m.q[i] / m.top) * (m.hi - m.lo));

/**
 * The header at every position of its slider: what differs there in place of what the start has. Each panel's view
 * knows its `versions`, the maps of all positions, which share one range: a colour means one number on all of it.
 */
function headersOf(header) {
  if (!header.sweep) return [header];
  const all = header.sweep.frames.map((f) => ({ ...header, panels: header.panels.map((panel, p) => ({ ...panel, badge: f.badges[p],
    views: panel.views.map((view, v) => {
      const version = f.panels[p][v];
      const maps = view.maps.map((entry, i) => ({ ...entry, map: version.maps[i], label: version.names[i] }));
      const shares = view.shares.map((entry, i) => ({ ...entry, map: version.shares[i] }));
      const bars = view.bars.map((bar, i) => ({ ...bar, value: version.bars[i] }));
      const edges = view.edges.map((edge, i) => ({ ...edge, ...version.edges[i] }));
      return { ...view, maps, shares, bars, edges, marks: version.marks, note: version.note };
    }) })),
    arithmetic: header.arithmetic && { ...header.arithmetic, constants: f.constants },
  }));
  header.panels.forEach((panel, p) => panel.views.forEach((_, v) => {
    const versions = all.map((one) => one.panels[p].views[v].maps.map((entry) => entry.map));
    const bars = all.map((one) => one.panels[p].views[v].bars);
    for (const one of all) Object.assign(one.panels[p].views[v], { versions, allBars: bars });
  }));
  return all;
}

// ---------------------------------------------------------------------------------------------
// Places: a place of the picture belongs to the cell whose centre (offset + i * stride) is nearest
// ---------------------------------------------------------------------------------------------

const cellAt = (u, n, stride, offset) => Math.min(n - 1, Math.max(0, Math.floor((u - offset) / stride + 0.5)));

/** The span of cell `i` along an axis of `size` pixels; the first and the last reach the border. */
function cellSpan(i, n, stride, offset, size) {
  const from = i === 0 ? 0 : offset + (i - 0.5) * stride;
  const to = i === n - 1 ? size : offset + (i + 0.5) * stride;
  return [Math.min(Math.max(from, 0), size), Math.min(Math.max(to, 0), size)];
}

/** For each of `pixels` screen pixels over `span` picture pixels: which cells it covers, and how much of each. */
function samples(n, stride, offset, start, span, pixels) {
  const per = span / pixels;
  const first = new Int32Array(pixels);
  if (stride / per >= 2) {
    for (let i = 0; i < pixels; i++) first[i] = cellAt(start + (i + 0.5) * per, n, stride, offset);
    return { first, weights: null };
  }
  const weights = [];
  const inside = (t) => Math.min(n, Math.max(0, t));
  for (let i = 0; i < pixels; i++) {
    const from = inside((start + i * per - offset) / stride + 0.5);
    const to = inside((start + (i + 1) * per - offset) / stride + 0.5);
    if (to - from < 1e-9) {
      first[i] = Math.min(n - 1, Math.floor(from));
      weights.push([1]);
      continue;
    }
    first[i] = Math.floor(from);
    const row = [];
    for (let c = first[i]; c < to - 1e-9; c++) row.push((Math.min(c + 1, to) - Math.max(c, from)) / (to - from));
    weights.push(row);
  }
  return { first, weights };
}

/** Paint cells of a map into a rectangle of `out`: crisp where a cell spans two pixels or more, averaged below. */
function raster(out, outWidth, rect, colours, w, across, down) {
  if (!across.weights && !down.weights) {
    let previous = -1;
    for (let y = 0; y < rect.h; y++) {
      const start = (rect.y + y) * outWidth + rect.x;
      const row = down.first[y];
      if (row === previous) {
        out.copyWithin(start, start - outWidth, start - outWidth + rect.w);
        continue;
      }
      previous = row;
      for (let x = 0; x < rect.w; x++) out[start + x] = colours[row * w + across.first[x]];
    }
    return;
  }
  const one = [1];
  for (let y = 0; y < rect.h; y++) {
    const wy = down.weights ? down.weights[y] : one;
    for (let x = 0; x < rect.w; x++) {
      const wx = across.weights ? across.weights[x] : one;
      let r = 0, g = 0, b = 0;
      for (let j = 0; j < wy.length; j++) {
        const row = (down.first[y] + j) * w + across.first[x];
        for (let i = 0; i < wx.length; i++) {
          const colour = colours[row + i];
          const share = wx[i] * wy[j];
          r += (colour & 255) * share;
          g += ((colour >> 8) & 255) * share;
          b += ((colour >> 16) & 255) * share;
        }
      }
      out[(rect.y + y) * outWidth + rect.x + x] = pack32(r + 0.5, g + 0.5, b + 0.5);
    }
  }
}

// ---------------------------------------------------------------------------------------------
// Colours
// ---------------------------------------------------------------------------------------------

const pack32 = (r, g, b) => (255 << 24) | ((b & 255) << 16) | ((g & 255) << 8) | (r & 255);
const RAMP = 1024;
const lutBytes = {};
const ramps = new Map();

function lut(name) {
  lutBytes[name] ??= Uint8Array.from(atob(LUTS[name]), (c) => c.charCodeAt(0));
  return lutBytes[name];
}

/** A colour map as RAMP packed colours with the gamma folded in; signed maps keep their white centre. */
function ramp(name, gamma) {
  const key = `${name} ${gamma}`;
  if (ramps.has(key)) return ramps.get(key);
  const table = lut(name), out = new Uint32Array(RAMP);
  for (let i = 0; i < RAMP; i++) {
    const t = i / (RAMP - 1), s = 2 * t - 1;
    const bent = name === "signed" ? 0.5 + 0.5 * Math.sign(s) * Math.abs(s) ** gamma : t ** gamma;
    const p = bent * 255, a = Math.min(254, Math.floor(p)), f = p - a;
    const mix = (k) => Math.round(table[3 * a + k] * (1 - f) + table[3 * a + 3 + k] * f);
    out[i] = pack32(mix(0), mix(1), mix(2));
  }
  if (ramps.size > 40) ramps.clear();
  ramps.set(key, out);
  return out;
}

const plain = (scale) => scale === "sequential" || scale === "amount";
const lutName = (scale, colormap) => (plain(scale) ? colormap : scale);
const bends = (scale) => plain(scale) || scale === "signed";
const position = (v, [lo, hi]) => (hi > lo ? Math.min(1, Math.max(0, (v - lo) / (hi - lo))) : 0);
const flatPosition = (scale) => (scale === "signed" ? 0.5 : 0); // a constant map is flat: zero keeps zero's colour

/** The packed colours of a map's cells, kept until its range, colour map or gamma changes. */
function colourise(m, scale, limits, settings, mode) {
  if (m.rgb) {
    if (!m.colours) {
      m.colours = new Uint32Array(m.h * m.w);
      for (let i = 0; i < m.colours.length; i++) m.colours[i] = pack32(m.rgb[3 * i], m.rgb[3 * i + 1], m.rgb[3 * i + 2]);
    }
    return m.colours;
  }
  const gamma = bends(scale) ? settings.gamma : 1;
  const name = lutName(scale, settings.colormap);
  const key = `${name} ${gamma} ${limits[0]} ${limits[1]} ${m.holes ? mode : ""}`;
  if (m.key === key) return m.colours;
  const table = ramp(name, gamma), n = m.h * m.w, out = (m.colours ??= new Uint32Array(n));
  const none = pack32(...NO_NUMBER[mode]), flat = limits[0] === limits[1];
  const from = flat ? flatPosition(scale) : position(m.lo, limits), clipped = m.lo < limits[0] || m.hi > limits[1];
  const scaleBy = limits[1] > limits[0] ? (m.hi - m.lo) / (limits[1] - limits[0]) / m.top : 0;
  for (let i = 0; i < n; i++) {
    if (m.q[i] === m.none) {
      out[i] = none;
      continue;
    }
    const t = clipped ? position(valueAt(m, i), limits) : from + m.q[i] * scaleBy;
    out[i] = table[Math.min(RAMP - 1, Math.round(t * (RAMP - 1)))];
  }
  m.key = key;
  return out;
}

/** The grey picture below a weight per place. */
function greyColours(m) {
  if (!m.grey) {
    m.grey = new Uint32Array(m.h * m.w);
    for (let i = 0; i < m.grey.length; i++) {
      const v = 0.299 * m.rgb[3 * i] + 0.587 * m.rgb[3 * i + 1] + 0.114 * m.rgb[3 * i + 2];
      m.grey[i] = pack32(v, v, v);
    }
  }
  return m.grey;
}

function blend(under, over, share) {
  const k = Math.round(share * 256), j = 256 - k;
  for (let i = 0; i < under.length; i++) {
    const a = under[i], b = over[i];
    const rb = (((a & 0xff00ff) * j + (b & 0xff00ff) * k) >>> 8) & 0xff00ff;
    const g = (((a & 0x00ff00) * j + (b & 0x00ff00) * k) >>> 8) & 0x00ff00;
    under[i] = (0xff000000 | rb | g) >>> 0;
  }
}

// ---------------------------------------------------------------------------------------------
// Small DOM
// ---------------------------------------------------------------------------------------------

function el(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (name === "class") node.className = value;
    else if (name === "text") node.textContent = value;
    else node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children);
  return node;
}

function say(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

/** Whether a node's contents are all to be seen; `scrollWidth` is rounded, and an ellipsis comes for a tenth of a pixel. */
function whole(node) {
  const range = document.createRange();
  range.selectNodeContents(node);
  return range.getBoundingClientRect().width <= node.getBoundingClientRect().width + 0.02;
}

/** The text, or as much of it as fits into `room` pixels, with an ellipsis. */
function shorten(context, text, room) {
  const signs = [...text];
  let fits = signs.length;
  while (fits && context.measureText(fits < signs.length ? `${signs.slice(0, fits).join("")}…` : text).width > room) fits -= 1;
  return fits < signs.length ? `${signs.slice(0, fits).join("").trimEnd()}…` : text;
}

function tip(node, text) {
  if (node.title !== text) node.title = text;
}

// ---------------------------------------------------------------------------------------------
// The board
// ---------------------------------------------------------------------------------------------

class BoardView {
  constructor(root) {
    this.root = root;
    this.header = null;
    this.identity = null;
    this.panels = [];
    this.settings = { pin: null, pin_channel: null, colormap: "viridis", gamma: 1, range: "row", aligned: null, frame: null };
    this.believed = { ...this.settings }; // what the server has, as far as this side knows
    this.sent = {}; // field -> values sent and not yet echoed
    this.views = {}; // panel id -> view key a person chose
    this.sentViews = "{}";
    this.opacity = 0.7;
    this.window = { x: 0, y: 0, zoom: 1 };
    this.rest = null; // the last place under the pointer
    this.hovering = null; // the panel under the pointer
    this.big = null; // the enlarged channel
    this.drag = null;
    this.frame = 0;
    this.timer = 0;
    this.build();
    this.observer = new ResizeObserver(() => this.resized());
    this.observer.observe(root);
  }

  destroy() {
    this.observer.disconnect();
    cancelAnimationFrame(this.frame);
    clearTimeout(this.timer);
  }

  t(key, values) {
    const text = this.header?.text[key] ?? "";
    return values ? fill(text, values) : text;
  }

  // --- data ------------------------------------------------------------------------------------
  receive(bytes, send) {
    this.send = send;
    const { header: told, payload } = readHeader(bytes);
    const before = this.header;
    const identity = `${told.digest} ${told.language}`;
    const fresh = identity !== this.identity;
    this.headers = headersOf(told);
    this.adopt(told.view, before?.view);
    const header = (this.header = this.headers[this.sliderAt()]);
    if (fresh) {
      this.maps = decode(bytes, told, payload);
      this.identity = identity;
      this.decoded = (this.decoded ?? 0) + 1;
      this.root.dataset.decoded = this.decoded;
      const kept = before && before.size[0] === header.size[0] && before.size[1] === header.size[1];
      if (!kept) {
        this.window = { x: 0, y: 0, zoom: 1 };
        this.rest = null;
      }
      this.arrange(before);
    } else {
      for (const panel of this.panels) this.chooseView(panel, header.panels[panel.index], before.panels[panel.index]);
    }
    if (this.rest === null) {
      const [h, w] = header.size;
      this.rest = { x: Math.floor(w / 2), y: Math.floor(h / 2), channel: null };
    }
    this.refresh();
  }

  /** Take what the server changed; an echo of what this side sent must not undo what came after it. */
  adopt(view, before) {
    for (const field of VIEW_FIELDS) {
      const value = JSON.stringify(view[field]);
      if (before && JSON.stringify(before[field]) === value) continue;
      const echoes = this.sent[field] ?? [];
      if (echoes.includes(value)) {
        if (JSON.stringify(this.settings[field]) === value) delete this.sent[field];
        continue;
      }
      delete this.sent[field];
      this.settings[field] = view[field];
      this.believed[field] = view[field];
    }
  }

  // --- the slider ------------------------------------------------------------------------------
  /** The position of the slider nearest to what is chosen; it starts where the server says. */
  sliderAt() {
    const sweep = this.headers[0].sweep, wanted = this.settings.frame;
    if (!sweep || wanted === null) return sweep?.start ?? 0;
    const away = sweep.frames.map((f) => Math.abs(f.value - wanted));
    return away.indexOf(Math.min(...away));
  }

  /** Show another position. Only numbers change: the panels, their views, channels and ranges stay. */
  slide(position) {
    const { sweep } = this.header;
    this.settings.frame = position === sweep.start ? null : sweep.frames[position].value;
    const header = this.headers[position];
    if (header === this.header) return;
    this.header = header;
    for (const panel of this.panels) {
      panel.data = header.panels[panel.index];
      panel.view = panel.data.views.find((v) => v.key === panel.view.key);
      this.badge(panel);
    }
    this.prepareRanges();
    this.later();
  }

  slideKey(event) {
    const last = this.headers.length - 1, here = this.sliderAt();
    const next = {
      ArrowLeft: here - 1, ArrowDown: here - 1, ArrowRight: here + 1, ArrowUp: here + 1,
      PageDown: here - 3, PageUp: here + 3, Home: 0, End: last,
    }[event.key];
    if (next === undefined || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    this.slide(Math.min(last, Math.max(0, next)));
    this.showSlider();
    this.report(280);
  }

  /** Put the thumb, the value, the facts and the mark on the curve where the slider stands. */
  showSlider() {
    const { sweep } = this.header, { slider } = this;
    slider.node.hidden = !sweep;
    if (!sweep) return;
    const here = this.sliderAt(), frame = sweep.frames[here];
    slider.node.dataset.kind = sweep.kind;
    say(slider.label, sweep.label);
    sweep.ends.forEach((end, i) => say(slider.ends[i], end));
    slider.input.value = String(frame.place);
    slider.input.setAttribute("aria-label", sweep.label);
    slider.input.setAttribute("aria-valuetext", frame.facts ? this.t("frame", { value: frame.text, facts: frame.facts }) : frame.text);
    tip(slider.track, this.t("frame_tip", { curve: sweep.curve }));
    say(slider.value, frame.text);
    slider.value.style.minWidth = `${Math.max(...sweep.frames.map((f) => f.text.length))}ch`;
    this.colourWord(slider.facts, frame.facts, "low");
    const longest = sweep.frames.map((f) => f.facts).reduce((a, b) => (b.length > a.length ? b : a));
    slider.room.dataset.longest = longest; // room for it is kept, so that the track never changes its length
    tip(slider.room, frame.facts);
    const known = sweep.frames.filter((f) => f.height !== null);
    const points = known.map((f) => `${(100 * f.place).toFixed(2)},${(100 * (1 - f.height)).toFixed(2)}`).join(" ");
    slider.curve.setAttribute("points", points);
    slider.mark.hidden = frame.height === null;
    slider.mark.style.left = `${100 * frame.place}%`;
    slider.mark.style.top = `${100 * (1 - (frame.height ?? 0))}%`;
    const key = JSON.stringify(sweep.frames.map((f) => f.place));
    if (slider.stopsKey !== key) {
      slider.stopsKey = key;
      slider.stops.replaceChildren(...sweep.frames.map((f) => {
        const stop = el("i");
        stop.style.left = `${100 * f.place}%`;
        return stop;
      }));
    }
  }

  /** A sentence in which the word for a level has the level's colour. */
  colourWord(node, text, level) {
    if (node.dataset.text === text) return;
    node.dataset.text = text;
    const word = this.t(level), at = word ? text.toLowerCase().indexOf(word.toLowerCase()) : -1;
    if (at < 0) return node.replaceChildren(text);
    const term = el("span", { class: "term", "data-role": level, text: text.slice(at, at + word.length) });
    node.replaceChildren(text.slice(0, at), term, text.slice(at + word.length));
  }

  /** Tell the server what changed here, once things are quiet: a double click is no pin, a slider no flood. */
  report(wait = 0) {
    clearTimeout(this.timer);
    this.timer = setTimeout(() => {
      const changes = {};
      for (const field of VIEW_FIELDS) {
        const value = JSON.stringify(this.settings[field]);
        if (value === JSON.stringify(this.believed[field]) && !this.sent[field]) continue;
        if (value === JSON.stringify(this.header.view[field]) && !this.sent[field]) continue;
        changes[field] = this.settings[field];
      }
      const views = JSON.stringify(this.views);
      const anew = VIEW_FIELDS.some((f) => f in changes && JSON.stringify(this.believed[f]) !== JSON.stringify(changes[f]));
      if (!anew && views === this.sentViews) return;
      for (const [field, value] of Object.entries(changes)) {
        (this.sent[field] ??= []).push(JSON.stringify(value));
        this.believed[field] = value;
      }
      if (views !== this.sentViews) changes.views = { ...this.views };
      this.sentViews = views;
      this.send(changes);
    }, wait);
  }

  // --- structure -------------------------------------------------------------------------------
  build() {
    const tools = (this.tools = {
      caption: el("span", { class: "caption" }),
      overlay: el("input", { type: "range", min: 0, max: 100, step: 5, class: "slider" }),
      colormap: el("select"),
      gamma: el("input", { type: "range", min: -1, max: 1, step: 0.05, class: "slider" }),
      range: el("select"),
      aligned: el("input", { type: "checkbox", role: "switch" }),
      zoom: el("button", { type: "button", class: "zoom" }),
      help: el("button", { type: "button", class: "round", text: "?" }),
    });
    const labelled = (name, ...inner) => {
      tools[`${name}Label`] = el("span");
      tools[`${name}Box`] = el("label", { class: "tool", "data-tool": name }, tools[`${name}Label`], ...inner);
      return tools[`${name}Box`];
    };
    tools.gammaValue = el("output", { class: "figure" });
    this.bar = el(
      "div", { class: "toolbar", role: "toolbar" }, tools.caption,
      labelled("overlay", tools.overlay), labelled("aligned", tools.aligned), labelled("colormap", tools.colormap),
      labelled("gamma", tools.gamma, tools.gammaValue), labelled("range", tools.range), tools.zoom, tools.help,
    );
    this.slider = this.newSlider();
    this.row = el("div", { class: "row" });
    this.sum = {
      place: el("span", { class: "place" }),
      maths: el("span", { class: "maths" }),
      note: el("span", { class: "note" }),
    };
    this.line = el("div", { class: "sum" }, this.sum.place, this.sum.maths, this.sum.note);
    this.live = el("div", { class: "unseen", "aria-live": "polite" });
    this.help = el("div", { class: "help", role: "dialog", hidden: true });
    this.root.replaceChildren(this.bar, this.slider.node, this.row, this.line, this.live, this.help);

    const set = (field, value) => {
      this.settings[field] = value;
      this.refresh();
    };
    tools.colormap.onchange = () => (set("colormap", tools.colormap.value), this.report());
    tools.range.onchange = () => (set("range", tools.range.value), this.report());
    tools.gamma.oninput = () => set("gamma", Number((10 ** (Number(tools.gamma.value) / 2)).toPrecision(3)));
    tools.gamma.onchange = () => this.report();
    tools.gamma.ondblclick = () => (set("gamma", 1), this.report());
    tools.overlay.oninput = () => {
      this.opacity = Number(tools.overlay.value) / 100;
      this.paint();
    };
    tools.aligned.onchange = () => this.align(tools.aligned.checked);
    tools.zoom.onclick = () => this.resetZoom();
    tools.help.onclick = () => this.showHelp(this.help.hidden);
    this.root.onkeydown = (event) => this.key(event);
  }

  newSlider() {
    const curve = el("div", { class: "curve", "aria-hidden": "true" });
    curve.innerHTML = `<svg viewBox="0 0 100 100" preserveAspectRatio="none">
      <polyline vector-effect="non-scaling-stroke"></polyline></svg>`;
    const slider = {
      label: el("span", { class: "sliderlabel" }),
      ends: ["low", "high"].map((role) => el("span", { class: "sliderend", "data-end": role })),
      input: el("input", { type: "range", min: 0, max: 1, step: "any" }),
      stops: el("div", { class: "stops", "aria-hidden": "true" }),
      curve: curve.querySelector("polyline"),
      mark: el("i", { class: "mark" }),
      value: el("output", { class: "slidervalue" }),
      facts: el("span"),
    };
    slider.room = el("span", { class: "facts" }, slider.facts);
    curve.append(slider.mark);
    slider.track = el("div", { class: "track" }, curve, slider.stops, slider.input);
    slider.node = el(
      "div", { class: "sweep", hidden: true },
      slider.label, slider.ends[0], slider.track, slider.ends[1], slider.value, slider.room,
    );
    slider.input.oninput = () => {
      const wanted = Number(slider.input.value);
      const away = this.header.sweep.frames.map((f) => Math.abs(f.place - wanted));
      this.slide(away.indexOf(Math.min(...away)));
      this.showSlider(); // the thumb rests only on positions there are
    };
    slider.input.onchange = slider.input.onpointerup = () => this.report(120);
    slider.input.onkeydown = (event) => this.slideKey(event);
    return slider;
  }

  /** Make the panels' elements fit the header; existing ones are reused, so nothing flickers and focus stays. */
  arrange(before) {
    const wanted = this.header.panels;
    const kept = new Map(this.panels.map((p) => [p.id, p]));
    this.panels = wanted.map((data, index) => {
      const panel = kept.get(data.id) ?? this.newPanel(data.id);
      const was = panel.view?.maps.map((m) => [m.label, m.channel]).join("|");
      panel.index = index;
      this.chooseView(panel, data, before?.panels.find((p) => p.id === data.id));
      if (was !== panel.view.maps.map((m) => [m.label, m.channel]).join("|")) panel.own = 0;
      return panel;
    });
    const nodes = this.panels.map((p) => p.node);
    if (nodes.length !== this.row.children.length || nodes.some((n, i) => n !== this.row.children[i])) {
      this.row.replaceChildren(...nodes);
    }
    if (this.big && !this.panels.some((p) => p.id === this.big.panel)) this.big = null;
    const bars = wanted.flatMap((p) => p.views.flatMap((v) => v.bars.map((bar) => bar.channel)));
    this.known = new Set([...this.header.channels, ...bars]); // channels that the board can speak of
    this.row.style.setProperty("--panels", Math.min(6, nodes.length));
    this.fillTools();
  }

  chooseView(panel, data, before) {
    if (before && data.view !== before.view) delete this.views[panel.id]; // the server chose anew
    const chosen = this.views[panel.id];
    if (chosen && !data.views.some((v) => v.key === chosen)) delete this.views[panel.id];
    panel.data = data;
    panel.view = data.views.find((v) => v.key === (this.views[panel.id] ?? data.view)) ?? data.views[0];
  }

  newPanel(id) {
    const panel = {
      id,
      title: el("h3", { class: "title" }),
      shape: el("span", { class: "shape" }),
      views: el("div", { class: "views", role: "group" }),
      pick: el("select", { class: "pick" }),
      badge: el("span", { class: "badge" }),
      base: el("canvas", { class: "base", "aria-hidden": "true" }),
      over: el("canvas", { class: "over", tabindex: 0, role: "img" }),
      bar: el("canvas", { class: "bar", "aria-hidden": "true" }),
      tick: el("i", { class: "tick" }),
      lo: el("span", { class: "end lo" }),
      number: el("span"),
      name: el("span", { class: "name" }),
      hi: el("span", { class: "end hi" }),
      strip: el("div", { class: "strip", "aria-hidden": "true", hidden: true }),
      shares: el("span", { class: "shares", hidden: true }),
      own: 0,
      tiles: [],
    };
    panel.head = el("div", { class: "head" }, panel.title, panel.shape);
    panel.value = el("span", { class: "value" }, panel.number, panel.name); // a name without room gives way to its number
    panel.stage = el("div", { class: "stage" }, panel.base, panel.over);
    panel.scale = el("div", { class: "scale" }, panel.bar, panel.tick, panel.strip);
    panel.sub = el("div", { class: "sub" }, panel.views, panel.pick, panel.badge);
    panel.node = el(
      "section", { class: "panel", "data-panel": id },
      panel.head, panel.sub, panel.stage, panel.scale,
      el("div", { class: "foot" }, panel.lo, panel.value, panel.hi, panel.shares),
    );
    panel.pick.onchange = () => this.pickView(panel, panel.pick.value);
    const over = panel.over;
    over.onpointermove = (e) => this.moved(panel, e);
    over.onpointerleave = () => this.left();
    over.onpointerdown = (e) => this.pressed(panel, e);
    over.onpointerup = (e) => this.released(panel, e);
    over.onpointercancel = () => (this.drag = null);
    over.ondblclick = (e) => this.doubled(panel, e);
    over.onwheel = (e) => this.wheeled(panel, e);
    over.onfocus = () => (this.focused = panel);
    return panel;
  }

  fillTools() {
    const { tools, header } = this;
    const options = (select, entries) => {
      if (select.dataset.language === header.language) return;
      select.replaceChildren(...entries.map(([value, text]) => el("option", { value, text })));
      select.dataset.language = header.language;
    };
    options(tools.colormap, Object.entries(header.text.colormaps));
    options(tools.range, Object.entries(header.text.ranges));
    for (const name of ["overlay", "aligned", "colormap", "gamma", "range"]) {
      say(tools[`${name}Label`], this.t(name));
      tip(tools[`${name}Box`], this.t(`${name}_tip`));
    }
    tip(tools.help, this.t("help_tip"));
    tools.help.setAttribute("aria-label", this.t("help_tip"));
    this.bar.setAttribute("aria-label", this.t("toolbar"));
    say(tools.caption, header.caption);
    tip(tools.caption, header.caption);
    const views = header.panels.flatMap((p) => p.views);
    tools.alignedBox.hidden = !header.panels.some((p) => p.views.some((v) => v.key.startsWith("aligned")));
    tools.overlayBox.hidden = !views.some((v) => v.over);
    this.fillHelp();
  }

  fillHelp() {
    const items = Object.entries(this.header.text.gestures).map(([name, gesture]) => [
      el("dt", { text: gesture }),
      el("dd", { text: this.header.text.meanings[name] }),
    ]);
    const close = el("button", { type: "button", class: "plain", text: this.t("close") });
    close.onclick = () => this.showHelp(false);
    this.help.setAttribute("aria-label", this.t("help"));
    this.help.replaceChildren(
      el("div", { class: "helphead" }, el("h3", { text: this.t("help") }), close),
      el("dl", {}, ...items.flat()),
    );
  }

  showHelp(shown) {
    this.help.hidden = !shown;
    this.tools.help.setAttribute("aria-expanded", String(shown));
    if (shown) this.help.querySelector("button").focus();
    else this.tools.help.focus();
  }

  // --- choices ---------------------------------------------------------------------------------
  pickView(panel, key) {
    this.views[panel.id] = key;
    panel.view = panel.data.views.find((v) => v.key === key);
    if (this.big?.panel === panel.id && !this.linked(panel)) this.big = null;
    this.refresh();
    this.report();
  }

  align(on) {
    for (const panel of this.panels) {
      const twin = panel.view.key.replace(/^(own|aligned)/, on ? "aligned" : "own");
      const view = panel.data.views.find((v) => v.key === twin);
      if (!view || !/^(own|aligned)/.test(panel.view.key)) continue;
      if (twin === panel.data.view) delete this.views[panel.id];
      else this.views[panel.id] = twin;
      panel.view = view;
    }
    this.settings.aligned = on;
    this.refresh();
    this.report();
  }

  pin(place) {
    this.settings.pin = place ? [place.x, place.y] : null;
    this.settings.pin_channel = place ? this.activeChannel() : null;
    this.refreshOverlay();
    this.report(280);
    const spoken = place ? `${this.sum.place.textContent} ${this.sum.maths.textContent}` : this.t("unpinned");
    say(this.live, spoken);
  }

  // --- what is active --------------------------------------------------------------------------
  place() {
    if (this.hovering) return this.rest;
    const pin = this.settings.pin;
    return pin ? { x: pin[0], y: pin[1] } : this.rest;
  }

  activeChannel() {
    const hovered = this.hovering && this.linked(this.hovering) ? this.rest.channel : null;
    const wanted = [hovered, this.settings.pin_channel, this.rest.channel].find((c) => c !== null && this.known.has(c));
    return wanted ?? this.header.channels[0] ?? null;
  }

  /** Whether a panel's channel numbers are those of the fused map: low's own channel 3 is not high's channel 3. */
  linked(panel) {
    if (this.apart(panel)) return false;
    if (panel.data.role === "fused" || panel.data.role === "weight") return true;
    if (panel.view.key.startsWith("aligned")) return true;
    if (panel.data.views.some((v) => v.key.startsWith("aligned"))) return false;
    return panel.view.maps.every((m) => m.channel === null || this.header.channels.includes(m.channel));
  }

  /** Whether a panel's maps are no channels of one map: levels side by side, heads of attention. */
  apart({ view }) {
    return view.kind === "maps" && view.maps.length > 1 && view.maps.every((m) => m.channel === null);
  }

  /** Which of a panel's maps the numbers in its foot speak of; -1 where it does not have the active channel. */
  activeMap(panel) {
    const maps = panel.view.maps;
    if (!maps.length) return -1;
    if (maps.length === 1 && maps[0].channel === null) return 0;
    if (!this.linked(panel)) return Math.min(panel.own, maps.length - 1);
    const channel = this.activeChannel();
    return maps.findIndex((m) => m.channel === channel);
  }

  enlarged(panel) {
    if (!this.big || panel.view.maps.length < 2) return -1;
    if (this.linked(panel) && this.big.linked) return panel.view.maps.findIndex((m) => m.channel === this.big.channel);
    return this.big.panel === panel.id ? Math.min(this.big.index, panel.view.maps.length - 1) : -1;
  }

  // --- values ----------------------------------------------------------------------------------
  cell({ map, stride, offset }, place) {
    const m = this.maps[map];
    const row = cellAt(place.y + 0.5, m.h, stride[0], offset[0]);
    const column = cellAt(place.x + 0.5, m.w, stride[1], offset[1]);
    return { row, column, index: row * m.w + column };
  }

  /** The number of one view for the active channel at a place: {value, step}, or null. */
  numberOf(view, channel, place) {
    if (view.kind === "bars" || view.kind === "numbers") {
      const bar = view.bars.find((b) => b.channel === channel);
      return bar && bar.value !== null ? { value: bar.value, step: 0 } : null;
    }
    const single = view.maps.length === 1 && view.maps[0].channel === null;
    const entry = single ? view.maps[0] : view.maps.find((m) => m.channel === channel);
    if (!entry) return null;
    const m = this.maps[entry.map];
    if (m.rgb) return null;
    return { value: valueAt(m, this.cell(entry, place).index), step: m.step };
  }

  // --- ranges ----------------------------------------------------------------------------------
  mapScale(view) {
    if (view.kind !== "bars") return view.scale;
    return view.maps.some((m) => this.maps[m.map].lo < 0) ? "signed" : "sequential"; // pictures beside the bars
  }

  prepareRanges() {
    const all = {};
    for (const panel of this.panels) {
      const { view } = panel, scale = this.mapScale(view);
      panel.mapScale = scale;
      const versions = view.versions ?? [view.maps.map((m) => m.map)]; // the slider changes no range
      panel.each = view.maps.map((_, i) => [...new Set(versions.map((maps) => maps[i]))].map((n) => this.maps[n]));
      panel.each = panel.each.map((maps) => maps.filter((m) => !m.rgb));
      panel.spread = [...new Set(panel.each.flat())];
      if (view.kind !== "maps" || !["low", "high", "fused"].includes(panel.data.role)) continue;
      (all[scale] ??= []).push(...panel.spread);
    }
    for (const panel of this.panels) {
      const shared = panel.view.kind === "maps" && ["low", "high", "fused"].includes(panel.data.role);
      const scale = panel.mapScale, range = this.settings.range;
      const over = (group) => {
        if (FIXED[scale]) return FIXED[scale];
        let lo = Infinity, hi = -Infinity;
        for (const g of group) [lo, hi] = [Math.min(lo, g.lo), Math.max(hi, g.hi)];
        if (scale === "amount") return [0, Math.max(hi, 0)];
        if (scale !== "signed") return [lo, hi];
        const top = Math.max(Math.abs(lo), Math.abs(hi));
        return [-top, top];
      };
      const once = over(range === "all" && shared ? all[scale] : panel.spread);
      const { maps } = panel.view, ofRow = (row) => panel.each.filter((_, i) => maps[i].row === row).flat();
      const rows = range === "row" && maps.some((m) => m.row > 0); // levels that came in, and those that came out
      const own = range === "map" ? panel.each.map(over) : rows ? maps.map((m) => over(ofRow(m.row))) : [];
      panel.limits = (index) => own[index] ?? once;
    }
  }

  // --- drawing ---------------------------------------------------------------------------------
  refresh() {
    this.theme();
    this.prepareRanges();
    for (const panel of this.panels) this.label(panel);
    this.fitHeads();
    this.showTools();
    this.showSlider();
    this.paint();
  }

  theme() {
    const style = getComputedStyle(this.root);
    const probe = (this.probe ??= document.createElement("canvas").getContext("2d"));
    const rgb = (name, fallback) => {
      probe.fillStyle = fallback;
      probe.fillStyle = style.getPropertyValue(name).trim() || fallback;
      const hex = probe.fillStyle;
      return hex.startsWith("#") ? [1, 3, 5].map((i) => parseInt(hex.slice(i, i + 2), 16)) : [255, 255, 255];
    };
    const [r, g, b] = rgb("--st-background-color", "#ffffff");
    const dark = 0.2126 * r + 0.7152 * g + 0.0722 * b < 128;
    this.mode = dark ? "dark" : "light";
    if (this.root.dataset.theme !== this.mode) this.root.dataset.theme = this.mode;
    this.colours = ROLE_COLOURS[this.mode];
    this.ink = `rgb(${rgb("--st-text-color", dark ? "#e6e9ef" : "#1b1f27").join(",")})`;
    this.card = `rgb(${rgb(dark ? "--st-secondary-background-color" : "--st-background-color", dark ? "#151a22" : "#ffffff")})`;
    this.faint = dark ? "rgba(255,255,255,.14)" : "rgba(0,0,0,.10)";
    this.soft = dark ? "rgba(230,233,239,.66)" : "rgba(27,31,39,.62)";
    this.font = style.fontFamily;
    this.fontPx = parseFloat(style.fontSize) || 14;
  }

  /** Where the numbers come from: at the first step of a training they are random. */
  badge({ badge, data }) {
    say(badge, data.badge?.text ?? "");
    tip(badge, data.badge?.help || data.badge?.text || "");
    badge.dataset.kind = data.badge?.kind ?? "";
    badge.hidden = !data.badge;
  }

  label(panel) {
    const { data, view } = panel;
    panel.node.dataset.role = data.role;
    panel.node.dataset.of = data.of;
    panel.node.dataset.view = view.key;
    panel.node.dataset.kind = view.kind;
    panel.node.dataset.views = data.views.length;
    panel.node.dataset.scale = view.scale;
    this.title(panel);
    tip(panel.shape, view.shape);
    this.badge(panel);
    panel.over.setAttribute("aria-label", this.t("canvas", { title: this.heading(panel).title, view: view.label, shape: view.shape }));
    panel.views.setAttribute("aria-label", this.t("views", { title: data.title }));
    panel.pick.setAttribute("aria-label", this.t("views", { title: data.title }));
    const key = JSON.stringify(data.views.map((v) => [v.key, v.label]));
    if (panel.viewsKey !== key) {
      panel.viewsKey = key;
      panel.views.replaceChildren(
        ...data.views.map((v) => {
          if (data.views.length === 1) return el("span", { class: "only", text: v.label });
          const button = el("button", { type: "button", "data-key": v.key, text: v.label });
          button.onclick = () => this.pickView(panel, v.key);
          return button;
        }),
      );
      panel.pick.replaceChildren(...data.views.map((v) => el("option", { value: v.key, text: v.label })));
    }
    for (const button of panel.views.querySelectorAll("button")) {
      button.setAttribute("aria-pressed", String(button.dataset.key === view.key));
    }
    if (panel.pick.value !== view.key) panel.pick.value = view.key;
    const scaled = view.kind === "maps" && view.scale !== "rgb";
    panel.node.dataset.scaled = scaled || view.kind === "bars" ? "yes" : "no";
  }

  /** The title in its role's colour; a weight's title stays ink, and the level it speaks of takes its colour. */
  title(panel) {
    const { title, of } = this.heading(panel);
    tip(panel.title, `${title} · ${panel.view.shape}`);
    const key = `${title} ${of} ${this.header.language}`;
    if (panel.titleKey === key) return;
    panel.titleKey = key;
    const word = of ? this.t(of) : "";
    const at = word ? title.toLowerCase().indexOf(word.toLowerCase()) : -1;
    if (at < 0) return panel.title.replaceChildren(title);
    const end = at + word.length;
    const term = el("span", { class: "term", "data-role": of, text: title.slice(at, end) });
    panel.title.replaceChildren(title.slice(0, at), term, title.slice(end));
  }

  /** The panel's title, or the one that its view has instead. */
  heading({ data, view }) {
    return view.title ? view : data;
  }

  /**
   * Arrange the two lines of a head. Title and shape stand on the first, views and badge on the second; where that
   * has no room, badge and shape change places, or the title has its line alone; at last the views become a list.
   */
  fitHeads() {
    for (const panel of this.panels) {
      const { title, shape, badge, views, pick, head, sub } = panel;
      const key = [panel.viewsKey, badge.textContent, panel.view.shape, title.title, head.clientWidth, this.fontPx].join();
      if (panel.fitKey === key) continue;
      panel.fitKey = key;
      const attempt = (first, second, list) => {
        sub.dataset.list = list ? "yes" : "no";
        head.replaceChildren(title, ...first);
        sub.replaceChildren(views, pick, ...second);
        this.fitShape(panel);
        return [title, shape, views, badge].every((node) => node.hidden || whole(node)) && whole(sub);
      };
      const several = panel.data.views.length > 1;
      const found =
        attempt([shape], [badge]) || attempt([badge], [shape]) || attempt([], [shape, badge]) ||
        (several && (attempt([shape], [badge], true) || attempt([], [shape, badge], true)));
      if (!found) attempt([], [badge], several); // the title's tooltip has the shape
    }
  }

  /** The shape in full where there is room; else without its stride, then set tightly; the tooltip has it all. */
  fitShape(panel) {
    const { shape } = panel.view, short = shape.split(" · ")[0];
    for (const text of [shape, short, short.replaceAll(" × ", "×")]) {
      say(panel.shape, text);
      if (whole(panel.shape)) return;
    }
  }

  showTools() {
    const { tools, settings } = this;
    tools.colormap.value = settings.colormap;
    tools.range.value = settings.range;
    tools.gamma.value = String(2 * Math.log10(settings.gamma));
    say(tools.gammaValue, settings.gamma.toFixed(2));
    tools.aligned.checked = this.panels.some((p) => p.view.key.startsWith("aligned"));
    tools.overlay.value = String(Math.round(this.opacity * 100));
    tools.overlay.disabled = !this.panels.some((p) => p.view.over);
    tools.overlayBox.dataset.off = tools.overlay.disabled ? "yes" : "no";
  }

  resized() {
    if (!this.header) return;
    this.theme();
    this.fitHeads();
    this.paint();
  }

  /** Everything that depends on data, colours or zoom. */
  paint() {
    if (!this.header) return;
    const zoom = this.window.zoom;
    say(this.tools.zoom, this.t("zoom", { factor: zoom < 1.005 ? "1" : number(zoom).text }));
    tip(this.tools.zoom, this.t("zoom_tip"));
    this.tools.zoom.disabled = zoom < 1.005;
    this.root.dataset.zoom = zoom.toFixed(2);
    for (const panel of this.panels) this.paintPanel(panel);
    this.paintOverlays();
  }

  later() {
    this.dirty = true;
    this.refreshOverlay();
  }

  refreshOverlay() {
    if (this.frame) return;
    this.frame = requestAnimationFrame(() => {
      this.frame = 0;
      if (this.dirty) {
        this.dirty = false;
        this.paint();
      } else this.paintOverlays();
    });
  }

  size(panel) {
    const [h, w] = this.header.size;
    const aspect = Math.min(2.5, Math.max(0.4, h / w));
    const dpr = window.devicePixelRatio || 1;
    const css = panel.stage.clientWidth;
    const width = Math.max(1, Math.round(css * dpr)), height = Math.max(1, Math.round(css * aspect * dpr));
    if (panel.aspect !== aspect) {
      panel.aspect = aspect;
      panel.stage.style.aspectRatio = `1 / ${aspect}`;
    }
    for (const canvas of [panel.base, panel.over]) {
      if (canvas.width !== width) canvas.width = width;
      if (canvas.height !== height) canvas.height = height;
    }
    panel.dpr = dpr;
    panel.width = width;
    panel.height = height;
  }

  paintPanel(panel) {
    this.size(panel);
    const { view, width, height } = panel;
    const context = panel.base.getContext("2d");
    if (!panel.image || panel.image.width !== width || panel.image.height !== height) {
      panel.image = context.createImageData(width, height);
      panel.pixels = new Uint32Array(panel.image.data.buffer);
    }
    panel.pixels.fill(0);
    this.layOut(panel);
    for (const tile of panel.tiles) this.paintTile(panel, tile);
    context.putImageData(panel.image, 0, 0);
    if (view.kind === "bars") this.paintBars(panel, context);
    if (view.kind === "numbers") this.paintNumbers(panel, context);
    if (view.kind === "graph") this.paintGraph(panel, context);
    const one = this.enlarged(panel) >= 0, named = one || (view.kind === "maps" && panel.tiles.length > 1);
    for (const tile of panel.tiles) {
      const marks = view.kind === "maps" ? this.marksOn(panel, tile) : [];
      this.paintMarks(panel, context, tile, marks);
      const label = named ? this.paintLabel(panel, context, tile) : null;
      this.paintTags(panel, context, tile, marks, label ? [label] : []);
    }
    if (!one) this.paintLabels(panel, context);
  }

  /** Where each map stands on the canvas, in whole device pixels. */
  layOut(panel) {
    const { view, width, height, dpr } = panel;
    const one = this.enlarged(panel);
    panel.rows = [];
    panel.profile = null;
    if (one >= 0) {
      panel.tiles = [{ entry: view.maps[one], index: one, x: 0, y: 0, w: width, h: height }];
      return;
    }
    panel.tiles = [];
    if (view.kind === "maps") {
      const side = Math.max(1, Math.ceil(Math.sqrt(view.maps.length)));
      if (view.maps.some((entry) => entry.box)) return this.layOutBoxes(panel);
      const gap = side > 1 ? Math.max(1, Math.round(2 * dpr)) : 0;
      view.maps.forEach((entry, index) => {
        const cut = (i, size) => Math.round((i * (size + gap)) / side);
        const column = index % side, row = Math.floor(index / side);
        const x = cut(column, width), y = cut(row, height);
        panel.tiles.push({ entry, index, x, y, w: cut(column + 1, width) - gap - x, h: cut(row + 1, height) - gap - y });
      });
    } else if (view.kind === "bars") this.layOutBars(panel);
  }

  /** Maps of several levels, each where its box says. */
  layOutBoxes({ tiles, view, width, height }) {
    view.maps.forEach((entry, index) => {
      const [x, y, side] = entry.box;
      const [left, right] = [x, x + side].map((v) => Math.round(v * width));
      const [top, bottom] = [y, y + side].map((v) => Math.round(v * height));
      tiles.push({ entry, index, x: left, y: top, w: right - left, h: bottom - top });
    });
  }

  /** A row for each pictured channel, heaviest first, and at the right the profile of all channels. */
  layOutBars(panel) {
    const { view, width, height, dpr } = panel;
    const rowHeight = Math.max(1.55 * this.fontPx * dpr, height / Math.max(1, view.bars.length));
    const fit = Math.max(1, Math.floor(height / rowHeight));
    const pictured = new Map(view.maps.map((entry, index) => [entry.channel, { entry, index }]));
    let shown = view.bars.map((bar, rank) => ({ bar, rank }));
    const all = shown.length;
    if (all > fit) {
      const active = this.activeChannel();
      const top = Math.ceil((fit - 1) / 2), bottom = fit - 1 - top;
      const chosen = shown.find((s) => s.bar.channel === active);
      const middle = chosen && chosen.rank >= top && chosen.rank < all - bottom ? [chosen] : [];
      const more = middle.length ? 0 : 1;
      shown = [...shown.slice(0, top + more), ...middle, ...shown.slice(all - bottom)];
    }
    const h = Math.min(height / shown.length, height / 4);
    const strip = all > shown.length ? Math.round(width * 0.2) : 0;
    const room = width - (strip ? strip + Math.round(8 * dpr) : 0);
    shown.forEach(({ bar, rank }, i) => {
      const y = Math.round(i * h), bottom = Math.round((i + 1) * h) - Math.max(1, Math.round(2 * dpr));
      const found = pictured.get(bar.channel);
      const side = bottom - y;
      panel.rows.push({ bar, rank, x: 0, y, w: room, h: side, gap: i > 0 && rank !== shown[i - 1].rank + 1 });
      if (found) panel.tiles.push({ ...found, x: 0, y, w: side, h: side, row: true });
    });
    if (strip) panel.profile = { x: width - strip, y: 0, w: strip, h: height };
  }

  paintTile(panel, tile) {
    if (tile.w < 1 || tile.h < 1) return; // no room yet: the page is still laying itself out
    const m = this.maps[tile.entry.map], { view } = panel;
    const [height, width] = this.header.size;
    const zoom = this.window.zoom;
    const { stride, offset } = tile.entry;
    const across = samples(m.w, stride[1], offset[1], this.window.x, width / zoom, tile.w);
    const down = samples(m.h, stride[0], offset[0], this.window.y, height / zoom, tile.h);
    const limits = m.rgb ? null : panel.limits(tile.index);
    const colours = colourise(m, panel.mapScale, limits, this.settings, this.mode);
    raster(panel.pixels, panel.width, tile, colours, m.w, across, down);
    const picture = view.over && this.opacity < 1 ? this.picture() : null;
    if (!picture) return;
    const { m: below, entry: seen } = picture;
    const under = { x: 0, y: 0, w: tile.w, h: tile.h };
    const grey = new Uint32Array(tile.w * tile.h), heat = new Uint32Array(tile.w * tile.h);
    raster(
      grey, tile.w, under, greyColours(below), below.w,
      samples(below.w, seen.stride[1], seen.offset[1], this.window.x, width / zoom, tile.w),
      samples(below.h, seen.stride[0], seen.offset[0], this.window.y, height / zoom, tile.h),
    );
    raster(heat, tile.w, under, colours, m.w, across, down);
    blend(grey, heat, this.opacity);
    for (let y = 0; y < tile.h; y++) {
      panel.pixels.set(grey.subarray(y * tile.w, (y + 1) * tile.w), (tile.y + y) * panel.width + tile.x);
    }
  }

  picture() {
    const panel = this.panels.find((p) => p.data.role === "picture");
    const view = panel?.data.views.find((v) => v.scale === "rgb" && v.maps.length);
    return view ? { entry: view.maps[0], m: this.maps[view.maps[0].map] } : null;
  }

  /**
   * What a map is, in its corner: on dark, so that it can be read on any colours; a stripe has the level's colour.
   * Returns the rectangle [x0, y0, x1, y1] that it took, or null.
   */
  paintLabel(panel, context, { x, y, h, entry }) {
    const px = Math.min(0.72 * this.fontPx * panel.dpr, h / 3.2);
    if (!entry.label || px < 7 * panel.dpr) return null;
    context.font = `${px}px ${this.font}`;
    context.textBaseline = "alphabetic";
    context.textAlign = "left";
    const pad = 0.32 * px, stripe = entry.level ? Math.round(0.3 * px) : 0;
    const width = context.measureText(entry.label).width + 2 * pad + stripe;
    context.fillStyle = "rgba(12,14,18,.62)";
    context.fillRect(x, y, Math.round(width), Math.round(1.4 * px));
    if (stripe) {
      context.fillStyle = this.levelColour(entry.level, "dark");
      context.fillRect(x, y, stripe, Math.round(1.4 * px));
    }
    context.fillStyle = "#fff";
    context.fillText(entry.label, x + pad + stripe, y + 1.04 * px);
    return [x, y, x + width, y + 1.4 * px];
  }

  // --- marks: boxes and dots over maps, as fusionviz.figures.marks draws them on slides -----------
  /** Sizes of the marks on a tile, in device pixels; a small tile has small dots and no words. */
  markSizes(panel, { w, h }) {
    const { dpr } = panel, px = Math.max(10, 0.75 * this.fontPx);
    const roomy = Math.min(w, h) >= 9 * px * dpr;
    const [line, halo, radius] = roomy ? [2, 1, Math.max(9, 0.85 * px)] : [1.5, 0.5, 4.5];
    return { roomy, px: px * dpr, line: line * dpr, halo: halo * dpr, radius: radius * dpr };
  }

  /**
   * The marks of a tile where they stand: cut to the picture, so that a line at its border is seen whole; a box
   * beside the picture is left out.
   */
  marksOn(panel, tile) {
    const [height, width] = this.header.size, { line, halo, radius } = this.markSizes(panel, tile);
    const [left, top, wide, high] = this.onTile(tile, 0, width, 0, height);
    const beside = ([u0, v0, u1, v1]) => (u0 < u1 || v0 < v1) && (u1 <= 0 || v1 <= 0 || u0 >= width || v0 >= height);
    const shown = panel.view.marks.filter(({ on, box }) => (on === null || on === tile.index) && !beside(box));
    return shown.map((mark) => {
      const [u0, v0, u1, v1] = mark.box, dot = u0 === u1 && v0 === v1, inset = (dot ? radius : line / 2) + halo;
      const along = (u) => Math.round(Math.min(left + wide - inset, Math.max(left + inset, left + (u / width) * wide)));
      const down = (v) => Math.round(Math.min(top + high - inset, Math.max(top + inset, top + (v / height) * high)));
      const colour = mark.level ? this.levelColour(mark.level) : PIN_COLOUR;
      const [x0, y0, x1, y1] = [along(u0), down(v0), along(u1), down(v1)];
      return { ...mark, dot, x0, y0, x1, y1, x: (x0 + x1) / 2, y: (y0 + y1) / 2, colour, ink: INKS[colour] ?? "#111" };
    });
  }

  /** Boxes, then the lines that lead from mark to mark, then dots with what stands in them. */
  paintMarks(panel, context, tile, marks) {
    if (!marks.length) return;
    const { dpr } = panel, { roomy, px, line, halo, radius } = this.markSizes(panel, tile);
    const stroke = (mark, path) => {
      const faint = mark.faint, thick = faint ? dpr : line;
      for (const [colour, more] of [[mark.ink, faint ? dpr : 2 * halo], [mark.colour, 0]]) {
        context.strokeStyle = colour;
        context.globalAlpha = faint && more ? 0.65 : 1;
        context.setLineDash(faint ? [4 * dpr, 3 * dpr] : []);
        context.lineWidth = thick + more;
        path();
      }
      context.globalAlpha = 1;
      context.setLineDash([]);
    };
    const disc = ({ x, y }) => {
      context.beginPath();
      context.arc(x, y, radius, 0, 2 * Math.PI);
    };
    context.save();
    context.beginPath();
    context.rect(tile.x, tile.y, tile.w, tile.h);
    context.clip();
    for (const m of marks) {
      const by = m.faint && dpr % 2 ? 0.5 : 0; // a line of an odd number of pixels is crisp between them
      if (!m.dot) stroke(m, () => context.strokeRect(m.x0 + by, m.y0 + by, m.x1 - m.x0, m.y1 - m.y0));
    }
    marks.forEach((m, i) => i && m.follows && this.paintArrow(context, marks[i - 1], m, m.dot ? radius + halo : 0, line, halo));
    context.textAlign = "center";
    context.textBaseline = "middle";
    for (const m of marks.filter((mark) => mark.dot)) {
      if (m.faint) stroke(m, () => (disc(m), context.stroke()));
      else {
        disc(m);
        context.strokeStyle = m.ink;
        context.lineWidth = 2 * halo;
        context.stroke();
        context.fillStyle = m.colour;
        context.fill();
        context.fillStyle = m.ink;
        context.font = `600 ${1.08 * px}px ${this.font}`;
        if (roomy) context.fillText(m.label, m.x, m.y + 0.06 * px, 1.7 * radius);
      }
    }
    context.restore();
  }

  /** A line from one mark's middle to the next one's; its head ends `short` of it. */
  paintArrow(context, before, m, short, line, halo) {
    const whole = Math.hypot(m.x - before.x, m.y - before.y), far = whole - short, head = 4.3 * line;
    if (far < head) return;
    const [dx, dy] = [(m.x - before.x) / whole, (m.y - before.y) / whole];
    const at = (ahead, aside = 0) => [before.x + ahead * dx - aside * dy, before.y + ahead * dy + aside * dx];
    for (const [colour, more] of [[m.ink, 2 * halo], [m.colour, 0]]) {
      context.strokeStyle = context.fillStyle = colour;
      context.lineWidth = line + more;
      context.beginPath();
      context.moveTo(...at(0));
      context.lineTo(...at(far - 0.8 * head));
      context.stroke();
      context.beginPath();
      context.moveTo(...at(far));
      context.lineTo(...at(far - head, 0.55 * head));
      context.lineTo(...at(far - head, -0.55 * head));
      context.closePath();
      context.fill();
      context.lineWidth = more;
      if (more) context.stroke();
    }
  }

  /** Each box's label on a tag at its edge; tags keep away from each other, from dots and from what is `taken`. */
  paintTags(panel, context, tile, marks, taken) {
    const { roomy, px, line, halo, radius } = this.markSizes(panel, tile);
    if (!roomy) return;
    const room = [tile.x + halo, tile.y + halo, tile.x + tile.w - halo, tile.y + tile.h - halo];
    const seen = marks.filter((m) => !m.faint && m.x1 >= room[0] && m.x0 <= room[2] && m.y1 >= room[1] && m.y0 <= room[3]);
    const boxes = seen.filter((m) => !m.dot), full = [...taken];
    for (const { x, y } of seen.filter((m) => m.dot)) full.push([x - radius, y - radius, x + radius, y + radius]);
    context.font = `600 ${px}px ${this.font}`;
    context.textAlign = "left";
    context.textBaseline = "alphabetic";
    const pad = 0.4 * px, tags = [];
    for (const m of boxes) {
      if (!m.label) continue;
      const most = Math.min(Math.max(m.x1 - m.x0, 0.62 * tile.w), room[2] - room[0]) - 2 * pad;
      const text = shorten(context, m.label, most), wide = Math.ceil(context.measureText(text).width + 2 * pad);
      const spot = this.bestSpot(m, wide, Math.round(1.4 * px), line / 2, room, full, boxes);
      full.push(spot);
      tags.push([m, text, spot]);
    }
    for (const [m, text, [x0, y0, x1, y1]] of tags.reverse()) { // the first lies on top
      context.fillStyle = m.ink;
      context.fillRect(x0 - halo, y0 - halo, x1 - x0 + 2 * halo, y1 - y0 + 2 * halo);
      context.fillStyle = m.colour;
      context.fillRect(x0, y0, x1 - x0, y1 - y0);
      context.fillStyle = m.ink;
      context.fillText(text, x0 + pad, y0 + 1.05 * px);
    }
  }

  /**
   * Where a tag stands: above its box, inside at the top, below, or inside at the bottom. A spot costs the part of the
   * tag that is taken, which counts most, and the part of each box that the tag hides; of equal spots the first is best.
   */
  bestSpot({ x0, y0, x1, y1 }, wide, high, half, [left, top, right, bottom], taken, boxes) {
    const clamp = (v, from, to) => Math.min(Math.max(v, from), to);
    const shared = (a, b) =>
      Math.max(0, Math.min(a[2], b[2]) - Math.max(a[0], b[0])) * Math.max(0, Math.min(a[3], b[3]) - Math.max(a[1], b[1]));
    let best = null, least = Infinity;
    const tops = [y0 + half - high, clamp(y0 - half, top, bottom - high), y1 - half, y1 + half - high];
    tops.filter((y) => y >= top && y <= bottom - high).forEach((y, i) => {
      [x0 - half, x1 + half - wide].forEach((wanted, j) => {
        const x = clamp(wanted, left, right - wide), tag = [x, y, x + wide, y + high];
        let cost = 0.03 * (2 * i + j);
        for (const other of taken) cost += (4 * shared(tag, other)) / (wide * high);
        for (const b of boxes) cost += shared(tag, [b.x0, b.y0, b.x1, b.y1]) / Math.max(1, (b.x1 - b.x0) * (b.y1 - b.y0));
        if (cost < least) [best, least] = [tag, cost];
      });
    });
    return best;
  }

  /** The smallest box with a label around the place under the pointer, on the map that a panel's foot speaks of. */
  markAt(panel, { x, y }) {
    const index = this.activeMap(panel), area = ([x0, y0, x1, y1]) => (x1 - x0) * (y1 - y0);
    const around = panel.view.marks.filter(({ box: [x0, y0, x1, y1], on, label }) =>
      label && (on === null || on === index) && x + 0.5 > x0 && x + 0.5 < x1 && y + 0.5 > y0 && y + 0.5 < y1);
    return around.sort((a, b) => area(a.box) - area(b.box))[0] ?? null;
  }

  /** Words that stand in a panel, all of one size: as large as the one with the least room allows. */
  paintLabels(panel, context) {
    const { view, width, height, dpr } = panel;
    if (!view.labels.length) return;
    const joined = (label) => [label.name, label.text].filter(Boolean).join("\u2002");
    const full = 0.78 * this.fontPx * dpr;
    context.font = `600 ${full}px ${this.font}`;
    const px = Math.min(full, ...view.labels.map((l) => (full * l.room * width) / context.measureText(joined(l)).width));
    context.textBaseline = "middle";
    context.textAlign = "left";
    for (const label of view.labels) {
      const name = label.name ? `${label.name}\u2002` : "";
      context.font = `600 ${px}px ${this.font}`;
      const named = context.measureText(name).width;
      context.font = `${px}px ${this.font}`;
      const x = label.x * width - (label.align === "center" ? (named + context.measureText(label.text).width) / 2 : 0);
      context.fillStyle = this.soft;
      context.fillText(label.text, x + named, label.y * height);
      if (!name) continue;
      context.font = `600 ${px}px ${this.font}`;
      context.fillStyle = label.level ? this.levelColour(label.level) : this.ink;
      context.fillText(name, x, label.y * height);
    }
  }

  /** Who hears whom: an edge is as thick as its share of what meets in its node. */
  paintGraph(panel, context) {
    const { view, width, height, dpr } = panel;
    const side = Math.min(width, height);
    const at = ([x, y]) => [x * width, y * height];
    const px = Math.min(0.72 * this.fontPx * dpr, 0.052 * side);
    context.lineCap = "butt";
    for (const edge of view.edges) {
      const from = view.nodes[edge.start], to = view.nodes[edge.end];
      context.strokeStyle = this.levelColour(from.level);
      context.globalAlpha = 0.75;
      context.lineWidth = Math.max(0.5 * dpr, 0.055 * side * edge.share);
      context.beginPath();
      context.moveTo(...at([from.x, from.y]));
      context.quadraticCurveTo(...at(edge.through), ...at([to.x, to.y]));
      context.stroke();
    }
    context.globalAlpha = 1;
    context.textAlign = "center";
    context.textBaseline = "middle";
    context.font = `${px}px ${this.font}`;
    for (const edge of view.edges) {
      const [x, y] = at(edge.mark);
      const wide = context.measureText(edge.text).width + 0.35 * px;
      context.fillStyle = this.card;
      context.fillRect(x - wide / 2, y - 0.58 * px, wide, edge.text ? 1.16 * px : 0);
      context.fillStyle = this.ink;
      context.fillText(edge.text, x, y);
    }
    for (const node of view.nodes) {
      const colour = this.levelColour(node.level), [x, y] = at([node.x, node.y]), radius = node.radius * side;
      context.font = `600 ${Math.min(px, 0.9 * radius)}px ${this.font}`;
      context.beginPath();
      context.arc(x, y, radius, 0, 2 * Math.PI);
      context.fillStyle = node.fused ? this.colours.fused : this.card;
      context.fill();
      context.strokeStyle = node.fused ? this.colours.fused : colour;
      context.lineWidth = 1.6 * dpr;
      context.stroke();
      context.fillStyle = node.fused ? this.card : this.ink;
      context.fillText(node.label, x, y + 0.05 * px);
    }
  }

  levelColour([index, count], mode = this.mode) {
    const list = BRANCH_COLOURS[mode];
    return list[Math.min(count, list.length - 1)]?.[index] ?? this.ink;
  }

  barColour(view, value) {
    const table = ramp(lutName(view.scale, this.settings.colormap), bends(view.scale) ? this.settings.gamma : 1);
    const [lo, hi] = this.barLimits(view);
    const c = table[Math.round(position(value, [lo, hi]) * (RAMP - 1))];
    return `rgb(${c & 255},${(c >> 8) & 255},${(c >> 16) & 255})`;
  }

  barLimits(view) {
    if (FIXED[view.scale]) return FIXED[view.scale];
    const values = (view.allBars ?? [view.bars]).flat().map((b) => b.value).filter((v) => v !== null);
    const lo = Math.min(0, ...values), hi = Math.max(0, ...values);
    return view.scale === "signed" ? [-Math.max(-lo, hi), Math.max(-lo, hi)] : [lo, hi];
  }

  /** Bars start at what is neutral: 0.5 where the scale chooses between two levels, else zero. */
  neutral(view) {
    return view.scale === "weight" ? 0.5 : 0;
  }

  paintBars(panel, context) {
    if (this.enlarged(panel) >= 0) return;
    const { view, dpr } = panel;
    const limits = this.barLimits(view), zero = position(this.neutral(view), limits);
    const px = 0.78 * this.fontPx * dpr;
    context.font = `${px}px ${this.font}`;
    context.textBaseline = "middle";
    const wide = Math.max(...panel.rows.map((r) => context.measureText(r.bar.label).width), 0);
    const figures = context.measureText(`${MINUS}0.000`).width;
    for (const row of panel.rows) {
      const middle = row.y + row.h / 2;
      const left = row.h + 5 * dpr + wide + 5 * dpr;
      const right = row.x + row.w - figures - 4 * dpr;
      const span = Math.max(8 * dpr, right - left);
      context.fillStyle = this.soft;
      context.textAlign = "right";
      context.fillText(row.bar.label, left - 5 * dpr, middle);
      context.fillStyle = this.faint;
      context.fillRect(left, row.y + row.h * 0.22, span, row.h * 0.56);
      if (row.bar.value !== null) {
        const t = position(row.bar.value, limits);
        const from = left + Math.min(t, zero) * span, to = left + Math.max(t, zero) * span;
        context.fillStyle = this.barColour(view, row.bar.value);
        context.fillRect(from, row.y + row.h * 0.22, Math.max(dpr, to - from), row.h * 0.56);
        context.fillStyle = this.soft;
        context.fillRect(Math.round(left + zero * span), row.y + row.h * 0.12, Math.max(1, dpr), row.h * 0.76);
        context.fillStyle = this.ink;
        context.textAlign = "right";
        context.fillText(number(row.bar.value).text, row.x + row.w, middle);
      }
      if (row.gap) {
        context.fillStyle = this.soft;
        context.fillRect(0, row.y - 1.5 * dpr, row.w, Math.max(1, dpr));
      }
    }
    const strip = panel.profile;
    if (!strip) return;
    const n = view.bars.length, each = strip.h / n;
    context.fillStyle = this.faint;
    context.fillRect(strip.x, strip.y, strip.w, strip.h);
    view.bars.forEach((bar, rank) => {
      if (bar.value === null) return;
      const t = position(bar.value, limits);
      const from = strip.x + Math.min(t, zero) * strip.w, to = strip.x + Math.max(t, zero) * strip.w;
      context.fillStyle = this.barColour(view, bar.value);
      context.fillRect(from, strip.y + rank * each, Math.max(1, to - from), Math.max(1, each + 0.5));
    });
    context.fillStyle = this.soft;
    context.fillRect(Math.round(strip.x + zero * strip.w), strip.y, Math.max(1, dpr), strip.h);
  }

  paintNumbers(panel, context) {
    const { view, width, height, dpr } = panel;
    const n = Math.max(1, view.bars.length);
    const limits = this.barLimits(view);
    const block = Math.min(height / n, 5.4 * this.fontPx * dpr), top = (height - block * n) / 2;
    const small = Math.min(block * 0.24, 0.95 * this.fontPx * dpr), inset = Math.round(4 * dpr);
    const written = view.bars.map((bar) => (bar.value === null ? this.t("not_number") : number(bar.value).text));
    const widest = (texts, px) => {
      context.font = `600 ${px}px ${this.font}`;
      return Math.max(...texts.map((text) => context.measureText(text).width), 1);
    };
    const room = Math.max(0.4 * width, width - 2 * inset - small - widest(view.bars.map((bar) => bar.label), small));
    const big = Math.min(block * 0.46, 2.1 * this.fontPx * dpr, (room / widest(written, 100)) * 100);
    view.bars.forEach((bar, index) => {
      const y = top + index * block, colour = this.levelColour(bar.level ?? [index, n]);
      const baseline = y + block * 0.56;
      context.textBaseline = "alphabetic";
      context.textAlign = "left";
      context.fillStyle = colour;
      const left = width - 2 * inset - small - widest(written, big);
      context.font = `600 ${small}px ${this.font}`;
      context.fillText(bar.label, inset, baseline, left);
      context.textAlign = "right";
      context.font = `600 ${big}px ${this.font}`;
      context.fillText(written[index], width - inset, baseline);
      const barTop = y + block * 0.68, tall = Math.max(3 * dpr, block * 0.12);
      context.fillStyle = this.faint;
      context.fillRect(inset, barTop, width - 2 * inset, tall);
      if (bar.value === null) return;
      context.fillStyle = colour;
      context.fillRect(inset, barTop, position(bar.value, limits) * (width - 2 * inset), tall);
    });
  }

  // --- overlays --------------------------------------------------------------------------------
  paintOverlays() {
    const place = this.place();
    for (const panel of this.panels) {
      // Rows of a long list of bars follow the active channel, so that panel is laid out again when it changes.
      if (panel.view.kind === "bars" && panel.barsFor !== this.activeChannel()) {
        panel.barsFor = this.activeChannel();
        if (this.enlarged(panel) < 0) this.paintPanel(panel);
      }
      this.paintOverlay(panel, place);
      this.paintFoot(panel, place);
    }
    this.paintSum(place);
  }

  /** The rectangle of picture span [x0 x1] x [y0 y1] on a tile, in device pixels. */
  onTile(tile, x0, x1, y0, y1) {
    const [height, width] = this.header.size, { x, y, zoom } = this.window;
    const kx = (tile.w * zoom) / width, ky = (tile.h * zoom) / height;
    return [tile.x + (x0 - x) * kx, tile.y + (y0 - y) * ky, (x1 - x0) * kx, (y1 - y0) * ky];
  }

  paintOverlay(panel, place) {
    const context = panel.over.getContext("2d"), { dpr, view } = panel;
    context.clearRect(0, 0, panel.width, panel.height);
    const active = this.activeMap(panel);
    const pin = this.settings.pin && { x: this.settings.pin[0], y: this.settings.pin[1] };
    const apart = pin && (pin.x !== place.x || pin.y !== place.y);
    for (const tile of panel.tiles) {
      context.save();
      context.beginPath();
      context.rect(tile.x, tile.y, tile.w, tile.h);
      context.clip();
      const main = panel.tiles.length === 1 || tile.index === active;
      if (view.placed) {
        if (apart) this.outline(context, panel, tile, pin, { faint: true, dash: true });
        this.outline(context, panel, tile, place, { faint: !main, pinned: pin && !apart });
      }
      if (view.asks) this.ring(context, panel, tile, view.asks);
      context.restore();
    }
    if (panel.tiles.length > 1 && view.kind === "maps" && view.placed) {
      const tile = panel.tiles.find((t) => t.index === active);
      if (tile) this.frameTile(context, panel, tile);
    }
    if (view.kind === "bars" && this.enlarged(panel) < 0) this.markBars(context, panel);
  }

  /** The active map's frame: a white line inside, so that it stands out from dark maps, and ink in the gap. */
  frameTile(context, { dpr }, tile) {
    for (const [colour, inset, thick] of [["#fff", 1.25, 1.5], [this.ink, -0.5, 2]]) {
      context.strokeStyle = colour;
      context.lineWidth = thick * dpr;
      context.strokeRect(tile.x + inset * dpr, tile.y + inset * dpr, tile.w - 2 * inset * dpr, tile.h - 2 * inset * dpr);
    }
  }

  outline(context, panel, tile, place, { faint = false, dash = false, pinned = false } = {}) {
    const { dpr } = panel;
    const [height, width] = this.header.size;
    const spans = ({ map, stride, offset }) => {
      const { h, w } = this.maps[map];
      const row = cellAt(place.y + 0.5, h, stride[0], offset[0]);
      const column = cellAt(place.x + 0.5, w, stride[1], offset[1]);
      return [...cellSpan(column, w, stride[1], offset[1], width), ...cellSpan(row, h, stride[0], offset[0], height)];
    };
    const box = (rect, colour, thick) => {
      let [x, y, w, h] = rect;
      context.setLineDash(dash && w > 10 * dpr ? [3 * dpr, 2 * dpr] : []);
      const grow = 0.75 * dpr; // drawn around the cell, so that its colour stays visible
      [x, y, w, h] = [x - grow, y - grow, w + 2 * grow, h + 2 * grow];
      context.strokeStyle = colour === "#fff" ? "rgba(0,0,0,.9)" : "rgba(255,255,255,.95)";
      context.lineWidth = (thick + 1.6) * dpr;
      context.strokeRect(x, y, w, h);
      context.strokeStyle = colour;
      context.lineWidth = thick * dpr;
      context.strokeRect(x, y, w, h);
    };
    const thick = faint ? 0.8 : 1.4;
    if (panel.data.role !== "picture") {
      const rect = this.onTile(tile, ...spans(tile.entry));
      box(rect, tile.row ? "#fff" : "#111", tile.row ? 0.8 : thick);
      return;
    }
    // On the picture: the true cell of high and of low around the place, and a cross through the place itself.
    const [px, py, pw, ph] = this.onTile(tile, place.x, place.x + 1, place.y, place.y + 1);
    if (!dash) {
      const cx = px + pw / 2, cy = py + ph / 2;
      for (const [colour, thin] of [["rgba(255,255,255,.55)", 2], ["rgba(0,0,0,.6)", 0.8]]) {
        context.strokeStyle = colour;
        context.lineWidth = thin * dpr;
        context.beginPath();
        context.moveTo(cx, tile.y);
        context.lineTo(cx, tile.y + tile.h);
        context.moveTo(tile.x, cy);
        context.lineTo(tile.x + tile.w, cy);
        context.stroke();
      }
    }
    const boxes = new Map();
    for (const role of ["low", "high", "fused"]) {
      const level = this.panels.find((p) => p.data.role === role);
      const shown = level?.data.views.find((v) => v.key.startsWith("own") && v.maps.length) ?? level?.view;
      if (!shown?.maps.length) continue;
      const rect = this.onTile(tile, ...spans(shown.maps[0]));
      if (!boxes.has(rect.join())) boxes.set(rect.join(), [rect, ROLE_COLOURS.light[role]]);
    }
    for (const [rect, colour] of [...boxes.values()].reverse()) box(rect, colour, thick); // the finest on top
    if (!boxes.size) box([px, py, pw, ph], "#111", thick);
    if (pinned) {
      context.setLineDash([]);
      context.fillStyle = "#fff";
      context.strokeStyle = "#111";
      context.lineWidth = dpr;
      context.beginPath();
      context.arc(px + pw / 2, py + ph / 2, 2.2 * dpr, 0, 2 * Math.PI);
      context.fill();
      context.stroke();
    }
  }

  /** A ring around the place whose row of attention is shown. */
  ring(context, { dpr }, tile, [x, y]) {
    const [left, top, wide] = this.onTile(tile, x, x + 1, y, y + 1);
    const radius = Math.max(4 * dpr, Math.min(8 * wide, tile.w / 14));
    for (const [colour, thick] of [["rgba(0,0,0,.85)", 3.4], ["#fff", 1.6]]) {
      context.setLineDash([]);
      context.strokeStyle = colour;
      context.lineWidth = thick * dpr;
      context.beginPath();
      context.arc(left, top, radius, 0, 2 * Math.PI);
      context.stroke();
    }
  }

  markBars(context, panel) {
    const channel = this.activeChannel(), { dpr } = panel;
    const row = panel.rows.find((r) => r.bar.channel === channel);
    context.strokeStyle = this.ink;
    context.lineWidth = 1.2 * dpr;
    if (row) context.strokeRect(0.6 * dpr, row.y + 0.1 * dpr, row.w - 0.2 * dpr, row.h);
    const rank = panel.view.bars.findIndex((b) => b.channel === channel);
    if (panel.profile && rank >= 0) {
      const { x, y, w, h } = panel.profile, n = panel.view.bars.length;
      const at = y + ((rank + 0.5) * h) / n;
      context.strokeRect(x + 0.6 * dpr, at - Math.max(2 * dpr, h / n / 2), w - 1.2 * dpr, Math.max(4 * dpr, h / n));
    }
  }

  // --- words and numbers under the panels --------------------------------------------------------
  nameOf(entry) {
    const name = entry.channel !== null ? this.t("channel", { n: entry.channel }) : entry.label;
    return name ? this.t("name", { name }) : "";
  }

  paintFoot(panel, place) {
    const { view, data } = panel;
    const pointed = this.hovering ? this.markAt(panel, place) : null;
    tip(panel.over, pointed?.label ?? "");
    if (data.role === "picture") {
      const words = pointed ? pointed.label : this.header.credit;
      say(panel.lo, words);
      tip(panel.lo, words);
      say(panel.hi, this.t("xy", place));
      this.paintScale(panel, null, null);
      return;
    }
    const at = this.activeMap(panel);
    const entry = view.maps[at];
    let limits = null, mark = null, text = "", name = "";
    let ends = ["", ""];
    this.paintShares(panel, place);
    if (!view.placed || view.kind === "numbers" || view.kind === "graph" || view.shares.length) ends = ["", ""];
    else if (view.kind === "bars") {
      limits = this.barLimits(view);
      const bar = view.bars.find((b) => b.channel === this.activeChannel());
      if (bar && bar.value !== null) {
        mark = bar.value;
        text = number(bar.value).text;
        name = this.t("name", { name: this.t("channel", { n: bar.label }) });
      }
    } else if (view.scale === "rgb") {
      if (entry) {
        const m = this.maps[entry.map], i = 3 * this.cell(entry, place).index;
        text = pointed ? pointed.label : `${m.rgb[i]} ${m.rgb[i + 1]} ${m.rgb[i + 2]}`;
        name = pointed ? "" : this.nameOf(entry);
      }
    } else {
      const m = this.maps[(entry ?? view.maps[0])?.map];
      if (m) limits = panel.limits(Math.max(0, at));
      if (entry) {
        const value = valueAt(m, this.cell(entry, place).index);
        if (Number.isFinite(value)) mark = value;
        text = Number.isFinite(value) ? number(value, m.step).text : this.t("not_number");
        name = this.nameOf(entry);
        if (m.lo === m.hi && !m.holes) text = this.t("constant", { value: text });
      }
    }
    if (limits) ends = this.ends(view, limits);
    say(panel.lo, ends[0]);
    say(panel.hi, ends[1]);
    say(panel.number, text);
    say(panel.name, name);
    tip(panel.value, `${name} ${text}`.trim());
    this.paintScale(panel, limits, mark);
  }

  /** Under a mixture of levels: each level's colour from pale to full, its name, and its share at the place. */
  paintShares(panel, place) {
    const { view, shares, strip } = panel, all = view.shares;
    shares.hidden = strip.hidden = !all.length;
    panel.node.dataset.shares = all.length ? "yes" : "no";
    if (!all.length) return;
    const key = JSON.stringify([all.map((s) => [s.label, s.level]), this.mode]);
    if (panel.sharesKey !== key) {
      panel.sharesKey = key;
      strip.replaceChildren(...all.map((s) => {
        const part = el("i");
        part.style.background = `linear-gradient(to right, #f5f5f5, ${this.levelColour(s.level, "light")})`;
        return part;
      }));
      shares.replaceChildren(...all.map((s) => {
        const part = el("span", { class: "share" }, el("b", { text: s.label }), " ", el("span"));
        part.style.color = this.levelColour(s.level);
        return part;
      }));
    }
    const values = all.map((s) => valueAt(this.maps[s.map], this.cell(s, place).index));
    const most = values.indexOf(Math.max(...values)), many = all.length > 4; // of many, only the largest has room
    shares.dataset.count = many ? "many" : all.length;
    values.forEach((value, i) => {
      const part = shares.children[i];
      say(part.lastChild, Number.isFinite(value) ? value.toFixed(2) : "–");
      part.style.visibility = many && i !== most ? "hidden" : "visible";
      part.style.justifyContent = many && i >= all.length / 2 ? "flex-end" : "flex-start";
    });
  }

  ends(view, [lo, hi]) {
    if (view.scale === "weight") return [this.t("high_wins"), this.t("low_wins")];
    if (view.scale === "phase") return [`${MINUS}π`, "π"];
    return [number(lo, 0, true).text, number(hi, 0, true).text];
  }

  paintScale(panel, limits, mark) {
    const scale = panel.view.kind === "bars" ? panel.view.scale : panel.mapScale;
    const shown = Boolean(limits);
    panel.scale.style.visibility = shown || panel.view.shares.length ? "visible" : "hidden";
    panel.bar.hidden = !shown;
    if (!shown) panel.tick.hidden = true;
    if (!shown) return;
    const flat = limits[0] === limits[1];
    const name = lutName(scale, this.settings.colormap), gamma = bends(scale) ? this.settings.gamma : 1;
    const width = Math.max(1, Math.round(panel.scale.clientWidth * panel.dpr));
    const key = `${name} ${gamma} ${flat} ${width}`;
    if (panel.barKey !== key) {
      panel.barKey = key;
      panel.bar.width = width;
      panel.bar.height = 1;
      const context = panel.bar.getContext("2d"), image = context.createImageData(width, 1);
      const pixels = new Uint32Array(image.data.buffer), table = ramp(name, gamma);
      for (let i = 0; i < width; i++) {
        const t = flat ? flatPosition(scale) : i / Math.max(1, width - 1);
        pixels[i] = table[Math.round(t * (RAMP - 1))];
      }
      context.putImageData(image, 0, 0);
    }
    panel.tick.hidden = mark === null || flat;
    if (mark !== null) panel.tick.style.left = `${(100 * position(mark, limits)).toFixed(2)}%`;
  }

  paintSum(place) {
    const { sum, header } = this, channel = this.activeChannel();
    const pin = this.settings.pin;
    const pinned = Boolean(pin && pin[0] === place.x && pin[1] === place.y);
    let where = this.t(channel === null ? "place" : "place_channel", { x: place.x, y: place.y, n: channel });
    if (this.speaksOfAligned()) where = this.t("place_aligned", { place: where });
    say(sum.place, pinned ? this.t("pinned", { place: where }) : where);
    sum.place.dataset.pinned = pinned ? "yes" : "no";
    const parts = header.arithmetic ? this.equation(header.arithmetic, channel, place) : this.readings(channel, place);
    const key = JSON.stringify([parts, this.mode]);
    if (this.sumKey !== key) {
      this.sumKey = key;
      sum.maths.replaceChildren(...parts.map(([text, role, title]) => el("span", { "data-role": role, text, title })));
    }
    const notes = this.panels.filter((p) => p.view.note).map((p) => p.view.note);
    const note = notes.join(" · ");
    say(sum.note, note);
    tip(sum.note, note);
  }

  /** Where a panel's number of the active channel stands: in what it shows, or in the aligned maps it does not show. */
  source(panel) {
    if (this.apart(panel)) return panel.data.views.find((v) => v.kind === "maps" && v.maps[0].channel !== null) ?? null;
    const { view } = panel, reduced = view.maps.length === 1 && view.maps[0].channel === null;
    // Beside numbers of one channel stands that channel's own weight, not the mean of all.
    const each = panel.data.role === "weight" && reduced ? panel.data.views.find((v) => v.key === "channels") : null;
    if (each) return each;
    if (reduced || this.linked(panel)) return view;
    return panel.data.views.find((v) => v.key === "aligned") ?? null;
  }

  /** What low, high, weight and fused are at the place, where a method has no equation for one element. */
  readings(channel, place) {
    const parts = [];
    for (const panel of this.panels) {
      const view = this.source(panel);
      if (panel.data.role === "picture" || !view || ["numbers", "graph"].includes(view.kind) || view.scale === "rgb") continue;
      const found = this.numberOf(view, channel, place);
      if (!found) continue;
      const shown = Number.isFinite(found.value) ? number(found.value, found.step).text : this.t("not_number");
      const { title } = this.heading(panel), from = `${title}, ${view.label}`;
      parts.push([parts.length ? "   " : "", ""], [`${title}\u2002`, `word ${panel.data.role}`, from]);
      parts.push([shown, panel.data.role, from]);
    }
    return parts;
  }

  /** Whether the numbers below are of aligned maps, while a panel shows other ones. */
  speaksOfAligned() {
    const sources = Object.values(this.header.arithmetic?.sources ?? {});
    const views = this.header.arithmetic ? sources : this.panels.map((p) => [p.id, this.source(p)?.key]);
    return views.some(([id, key]) => key === "aligned" && this.panels.find((p) => p.id === id)?.view.key !== key);
  }

  equation(arithmetic, channel, place) {
    const exact = {}, shown = {}, texts = {}, constants = {};
    let slack = 0, missing = false;
    for (const [name, value] of Object.entries(arithmetic.constants)) {
      const n = number(value);
      [exact[name], shown[name], texts[name], constants[name]] = [value, n.value, number(value, 0, true), value];
    }
    for (const [name, [id, key]] of Object.entries(arithmetic.sources)) {
      const view = this.header.panels.find((p) => p.id === id)?.views.find((v) => v.key === key);
      const found = view && this.numberOf(view, channel, place);
      const n = number(found?.value ?? NaN, found?.step ?? 0);
      [exact[name], shown[name], texts[name]] = [found?.value ?? NaN, n.value, n];
      slack += found?.step ?? 0;
      missing ||= !found;
      if (found && !Number.isFinite(found.value)) texts[name] = { ...n, text: this.t("not_number") };
    }
    const key = JSON.stringify([arithmetic.template, constants]);
    if (this.parsedKey !== key) {
      this.parsedKey = key;
      const [left, right] = simplify(arithmetic.template, constants);
      this.parsed = { left, right, compute: parse(right), solve: parse(left) };
    }
    const { left, right, compute, solve } = this.parsed;
    const result = left.match(/^\{(\w+)\}$/)?.[1];
    let sign = missing ? "=" : "≈"; // a channel that the board does not carry leaves dashes
    if (!missing && compute && solve) {
      const value = compute(shown), wanted = result ? texts[result] : number(solve(shown));
      const gap = Math.abs(compute(exact) - solve(exact));
      const room = 0.02 * Math.abs(solve(exact)) + 4 * slack + 1e-4;
      if (wanted && Number.isFinite(value) && same(value, wanted.value, wanted)) sign = "=";
      if (gap > room) sign = "≠";
    }
    const roleOf = { x: "low", y: "high", z: "fused" };
    const side = (text) => {
      const parts = [];
      const pieces = text.split(/(\{\w+\})/).filter(Boolean);
      pieces.forEach((piece, i) => {
        const name = piece.match(/^\{(\w+)\}$/)?.[1];
        if (!name) return parts.push([piece, ""]);
        const value = texts[name];
        if (!value) return parts.push([piece, ""]);
        const after = /[+\-−–·×*/]\s*$/.test(pieces[i - 1] ?? "");
        const [id, key] = arithmetic.sources[name] ?? [];
        const panel = this.header.panels.find((p) => p.id === id);
        const from = panel && `${panel.title}, ${panel.views.find((v) => v.key === key)?.label}`;
        parts.push([after && value.value < 0 ? `(${value.text})` : value.text, roleOf[name] ?? "weight", from]);
      });
      return parts;
    };
    return left ? [...side(left), [` ${sign} `, "relation"], ...side(right)] : side(right);
  }

  // --- pointer ---------------------------------------------------------------------------------
  locate(panel, event) {
    const box = panel.over.getBoundingClientRect();
    const x = ((event.clientX - box.left) / box.width) * panel.width;
    const y = ((event.clientY - box.top) / box.height) * panel.height;
    const inside = (r) => x >= r.x && x < r.x + r.w && y >= r.y && y < r.y + r.h;
    const away = (r) => Math.max(r.x - x, x - r.x - r.w, r.y - y, y - r.y - r.h, 0);
    const near = panel.tiles.filter((r) => away(r) <= 2 * panel.dpr); // the gaps between maps belong to the nearest
    const tile = near.length ? near.reduce((a, b) => (away(b) < away(a) ? b : a)) : null;
    if (tile) {
      const [height, width] = this.header.size, w = this.window;
      const u = w.x + ((x - tile.x) / tile.w) * (width / w.zoom), v = w.y + ((y - tile.y) / tile.h) * (height / w.zoom);
      const place = { x: Math.min(width - 1, Math.max(0, Math.floor(u))), y: Math.min(height - 1, Math.max(0, Math.floor(v))) };
      return { tile, place, u, v, channel: tile.entry.channel, index: tile.index };
    }
    const row = panel.rows?.find(inside);
    if (row) return { channel: row.bar.channel };
    if (panel.profile && inside(panel.profile)) {
      const n = panel.view.bars.length;
      const rank = Math.min(n - 1, Math.floor(((y - panel.profile.y) / panel.profile.h) * n));
      return { channel: panel.view.bars[rank].channel };
    }
    return null;
  }

  moved(panel, event) {
    if (this.drag) {
      const dx = event.clientX - this.drag.x, dy = event.clientY - this.drag.y;
      if (this.drag.moved || Math.hypot(dx, dy) > 4) this.panBy(panel, dx, dy);
      return;
    }
    const found = this.locate(panel, event);
    if (!found) return;
    this.hover(panel, found);
    panel.over.style.cursor = this.window.zoom > 1 ? "grab" : "crosshair";
  }

  hover(panel, found) {
    this.hovering = panel;
    const linked = this.linked(panel);
    this.rest = {
      ...(found.place ?? this.place()),
      channel: linked && found.channel !== null ? found.channel : this.rest.channel,
    };
    if (!linked && found.index !== undefined) panel.own = found.index;
    this.refreshOverlay();
  }

  left() {
    if (this.drag) return;
    this.hovering = null;
    this.refreshOverlay();
  }

  pressed(panel, event) {
    if (event.button !== 0) return;
    const found = this.locate(panel, event);
    if (found) this.hover(panel, found);
    this.drag = { x: event.clientX, y: event.clientY, window: { ...this.window }, moved: false, tile: found?.tile };
    panel.over.setPointerCapture(event.pointerId);
  }

  panBy(panel, dx, dy) {
    this.drag.moved = true;
    const tile = this.drag.tile;
    if (!tile || this.drag.window.zoom <= 1) return;
    const [height, width] = this.header.size, { zoom } = this.drag.window;
    this.window.x = this.drag.window.x - ((dx * panel.dpr) / tile.w) * (width / zoom);
    this.window.y = this.drag.window.y - ((dy * panel.dpr) / tile.h) * (height / zoom);
    this.clampWindow();
    panel.over.style.cursor = "grabbing";
    this.later();
  }

  released(panel, event) {
    const drag = this.drag;
    this.drag = null;
    if (panel.over.hasPointerCapture(event.pointerId)) panel.over.releasePointerCapture(event.pointerId);
    panel.over.style.cursor = this.window.zoom > 1 ? "grab" : "crosshair";
    if (!drag || drag.moved) return;
    // The second click of a double click enlarges: the pin goes back to what it was before the first.
    const now = event.timeStamp;
    if (this.click && now - this.click.time < 400 && this.click.panel === panel) return;
    this.click = { time: now, panel, pin: this.settings.pin, pin_channel: this.settings.pin_channel };
    const found = this.locate(panel, event);
    if (!found) return;
    const place = found.place ?? this.place();
    const pin = this.settings.pin;
    const again = pin && this.sameCell(place, { x: pin[0], y: pin[1] }) && this.activeChannel() === this.settings.pin_channel;
    this.pin(again ? null : place);
  }

  /** Whether two places lie in one cell of the finest level on the board. */
  sameCell(a, b) {
    const finest = this.finest();
    if (!finest) return a.x === b.x && a.y === b.y;
    return this.cell(finest, a).index === this.cell(finest, b).index;
  }

  finest() {
    let best = null;
    for (const panel of this.panels) {
      const entry = panel.view.maps[0];
      if (!entry || !["low", "high", "fused"].includes(panel.data.role)) continue;
      if (!best || entry.stride[0] < best.stride[0]) best = entry;
    }
    return best;
  }

  doubled(panel, event) {
    event.preventDefault();
    if (this.click) {
      this.settings.pin = this.click.pin;
      this.settings.pin_channel = this.click.pin_channel;
      this.click = null;
      this.report(0);
    }
    if (panel.data.role === "picture") return this.resetZoom();
    const found = this.locate(panel, event);
    this.toggleBig(panel, found?.index ?? panel.view.maps.findIndex((m) => m.channel === found?.channel));
  }

  toggleBig(panel, index) {
    if (this.big) this.big = null;
    else if (index >= 0 && panel.view.maps.length > 1) {
      const linked = this.linked(panel);
      this.big = { panel: panel.id, index, linked, channel: panel.view.maps[index].channel };
    } else return;
    this.root.dataset.enlarged = this.big ? "yes" : "no";
    this.paint();
  }

  wheeled(panel, event) {
    const found = this.locate(panel, event);
    if (!found?.tile || event.ctrlKey) return;
    if (this.window.zoom <= 1 && event.deltaY > 0) return; // nothing to zoom out of: let the page scroll
    event.preventDefault();
    const lines = event.deltaMode === 1 ? 16 : event.deltaMode === 2 ? 400 : 1;
    this.zoomAt(found.u, found.v, 2 ** (-(event.deltaY * lines) / 240));
  }

  zoomAt(u, v, factor) {
    const w = this.window, before = w.zoom;
    let zoom = Math.min(MAX_ZOOM, Math.max(1, before * factor));
    if (zoom < 1.02) zoom = 1;
    w.x = u - ((u - w.x) * before) / zoom;
    w.y = v - ((v - w.y) * before) / zoom;
    w.zoom = zoom;
    this.clampWindow();
    this.later();
  }

  clampWindow() {
    const [height, width] = this.header.size, w = this.window;
    w.x = Math.min(width - width / w.zoom, Math.max(0, w.x));
    w.y = Math.min(height - height / w.zoom, Math.max(0, w.y));
  }

  resetZoom() {
    this.window = { x: 0, y: 0, zoom: 1 };
    this.later();
  }

  // --- keyboard --------------------------------------------------------------------------------
  key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key === "Escape") {
      if (!this.help.hidden) this.showHelp(false);
      else if (this.big) this.toggleBig(this.panels[0], -1);
      else if (this.settings.pin) this.pin(null);
      else return;
      event.preventDefault();
      return;
    }
    if (/^(INPUT|SELECT)$/.test(event.target.tagName)) return;
    const onCanvas = event.target.tagName === "CANVAS";
    const panel = onCanvas ? this.panels.find((p) => p.over === event.target) : null;
    const arrows = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
    if (onCanvas && arrows[event.key]) this.step(...arrows[event.key]);
    else if (event.key === "[" || event.key === "]") this.stepChannel(panel, event.key === "]" ? 1 : -1);
    else if (event.key === "0") this.resetZoom();
    else if (event.key === "+" || event.key === "=") this.zoomAt(this.place().x + 0.5, this.place().y + 0.5, 1.5);
    else if (event.key === "-") this.zoomAt(this.place().x + 0.5, this.place().y + 0.5, 1 / 1.5);
    else if (event.key === "?") this.showHelp(this.help.hidden);
    else if (event.key === "Enter" && panel) this.toggleBig(panel, this.activeMap(panel));
    else if (event.key === " " && panel) this.pin(this.settings.pin ? null : this.place());
    else return;
    event.preventDefault();
  }

  /** Move the pinned place to the middle of the neighbouring cell of the finest level. */
  step(dx, dy) {
    const [height, width] = this.header.size, here = this.place(), finest = this.finest();
    this.hovering = null;
    const move = (p, d, axis, size) => {
      if (!d) return p;
      if (!finest) return Math.min(size - 1, Math.max(0, p + d));
      const { map, stride, offset } = finest, n = axis ? this.maps[map].w : this.maps[map].h;
      const i = Math.min(n - 1, Math.max(0, cellAt(p + 0.5, n, stride[axis], offset[axis]) + d));
      return Math.min(size - 1, Math.max(0, Math.round(offset[axis] + i * stride[axis] - 0.5)));
    };
    const place = { x: move(here.x, dx, 1, width), y: move(here.y, dy, 0, height) };
    this.rest = { ...this.rest, ...place };
    this.pin(place);
    this.follow(place);
  }

  /** Keep a place moved by keyboard inside a zoomed window. */
  follow({ x, y }) {
    const [height, width] = this.header.size, w = this.window;
    const outside = x < w.x || x >= w.x + width / w.zoom || y < w.y || y >= w.y + height / w.zoom;
    if (!outside) return;
    w.x = x + 0.5 - width / w.zoom / 2;
    w.y = y + 0.5 - height / w.zoom / 2;
    this.clampWindow();
    this.later();
  }

  stepChannel(panel, by) {
    const next = (list, current) => list[(list.indexOf(current) + by + list.length) % list.length];
    if (panel && !this.linked(panel)) {
      const n = panel.view.maps.length;
      if (n) panel.own = (panel.own + by + n) % n;
      if (this.big?.panel === panel.id) this.big.index = panel.own;
      return this.later();
    }
    const channels = this.header.channels;
    if (!channels.length) return;
    const current = this.activeChannel();
    const channel = channels.includes(current) ? next(channels, current) : channels[0];
    this.hovering = null;
    this.rest = { ...this.rest, channel };
    if (this.big?.linked) this.big.channel = channel;
    if (this.settings.pin) {
      this.settings.pin_channel = channel;
      this.report(280);
    }
    this.later();
  }
}

// ---------------------------------------------------------------------------------------------
// Streamlit runs this again at each new data or theme; the board lives as long as its element.
// ---------------------------------------------------------------------------------------------

const boards = new WeakMap();

export default function (component) {
  const { data, parentElement, setTriggerValue } = component;
  const root = parentElement.querySelector(".board");
  if (!root || !data) return undefined;
  let view = boards.get(parentElement);
  if (!view || view.root !== root) {
    view?.destroy();
    view = new BoardView(root);
    boards.set(parentElement, view);
  }
  view.receive(data, (changes) => setTriggerValue("changes", changes));
  return () => {
    view.destroy();
    boards.delete(parentElement);
  };
}
