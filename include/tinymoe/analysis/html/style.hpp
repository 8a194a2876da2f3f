#pragma once
/// @file
/// The style and the script of a report.

namespace tinymoe::inline v0_1::detail {

/// Colours of Okabe and Ito 2008, which people with any kind of colour vision tell apart; black, which is no colour of
/// a curve, is grey. On a dark page blue and vermilion are lighter. The levels of maps go from orange (less than even)
/// over the page's own to blue (more).
inline constexpr const char* report_style = R"css(
:root{color-scheme:light dark;--paper:#fdfdfb;--card:#fff;--ink:#1c1f23;--soft:#5c646e;--line:#d9dde1;
--c0:#0072b2;--c1:#d55e00;--c2:#009e73;--c3:#cc79a7;--c4:#e69f00;--c5:#56b4e9;--c6:#7d7d7d;--c7:#b5a800;--even:#f1f2f0}
@media (prefers-color-scheme:dark){:root{--paper:#14171a;--card:#1b1f23;--ink:#e7e9ea;--soft:#9aa4ae;--line:#343b42;
--c0:#4ba3d9;--c1:#f07d33;--c2:#2fc19a;--c3:#dd9cc0;--c4:#f0b429;--c5:#8bcff5;--c6:#a5a5a5;--c7:#efe34f;--even:#2b3036}}
*{box-sizing:border-box}
body{margin:0;background:var(--paper);color:var(--ink);font:16px/1.5 system-ui,-apple-system,"Segoe UI",sans-serif}
main{max-width:1180px;margin:0 auto;padding:20px 16px 60px}
h1{font-size:1.7rem;margin:.2em 0 0;overflow-wrap:anywhere}h2{font-size:1.3rem;margin:2.2em 0 .5em;padding-top:.5em;
border-top:1px solid var(--line)}h3{font-size:1.05rem;margin:1.5em 0 .4em}
p{max-width:46em;margin:.5em 0}.soft,figcaption{color:var(--soft)}figcaption{font-size:.92rem;margin-bottom:4px}
nav{display:flex;flex-wrap:wrap;gap:4px 16px;margin:.8em 0}a{color:var(--c0)}
.note{border-left:4px solid var(--c4);padding:.1em .8em}
.facts{display:grid;grid-template-columns:repeat(auto-fill,minmax(148px,1fr));gap:10px;margin:14px 0}
.facts div,figure{background:var(--card);border:1px solid var(--line);border-radius:10px;padding:10px 12px}
.facts b{display:block;font-size:1.35rem;font-weight:650;line-height:1.25;overflow-wrap:anywhere}
.facts span{color:var(--soft);font-size:.88rem}
.grid-of{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(100%,340px),1fr));gap:14px;align-items:start}
figure{margin:0;break-inside:avoid;min-width:0}svg{display:block;width:100%;height:auto;overflow:visible}
svg text{font-size:13px;fill:var(--soft);font-variant-numeric:tabular-nums}svg .end{text-anchor:end}
svg .middle{text-anchor:middle}svg .label,svg .name{fill:var(--ink)}svg .name{font-weight:600}
.plot svg:focus-visible,.token:focus-visible,input:focus-visible,button:focus-visible{outline:2px solid var(--c0);
outline-offset:2px}
.bar{fill:var(--c0)}@media (min-width:800px){.span{grid-column:span 2}}
.grid path{stroke:var(--line);fill:none}.grid .axis{stroke:var(--soft)}
.curve polyline{fill:none;stroke:var(--c);stroke-width:1.8;stroke-linejoin:round}.curve circle{fill:var(--c)}
.curve circle.ring{fill:var(--card);stroke:var(--c);stroke-width:2}
.curve.faint polyline{stroke-width:1;opacity:.35}.curve.dashed polyline{stroke-dasharray:5 3}
.curve polyline.none{stroke:none}.cursor{stroke:var(--soft);stroke-dasharray:2 3}
.c0{--c:var(--c0)}.c1{--c:var(--c1)}.c2{--c:var(--c2)}.c3{--c:var(--c3)}.c4{--c:var(--c4)}.c5{--c:var(--c5)}
.c6{--c:var(--c6)}.c7{--c:var(--c7)}.plain{--c:var(--soft)}
.legend{display:flex;flex-wrap:wrap;gap:2px 14px;font-size:.85rem;margin-top:4px}.legend span{overflow-wrap:anywhere}
.legend i{display:inline-block;width:16px;height:0;border-top:3px solid var(--c);vertical-align:middle;margin-right:5px}
.legend .faint i{opacity:.4}.legend .dashed i{border-top-style:dashed}
.l0{fill:var(--c1)}.l10{fill:var(--c0)}.l5{fill:var(--even)}
.l1{fill:color-mix(in oklab,var(--c1) 80%,var(--even))}.l2{fill:color-mix(in oklab,var(--c1) 60%,var(--even))}
.l3{fill:color-mix(in oklab,var(--c1) 40%,var(--even))}.l4{fill:color-mix(in oklab,var(--c1) 20%,var(--even))}
.l6{fill:color-mix(in oklab,var(--c0) 20%,var(--even))}.l7{fill:color-mix(in oklab,var(--c0) 40%,var(--even))}
.l8{fill:color-mix(in oklab,var(--c0) 60%,var(--even))}.l9{fill:color-mix(in oklab,var(--c0) 80%,var(--even))}
.scale{display:flex;align-items:center;gap:8px;font-size:.85rem;color:var(--soft);margin:.3em 0 .8em}
.scale svg{width:264px;flex:none}
.box rect{fill:color-mix(in oklab,var(--c) 16%,var(--card));stroke:var(--c)}.frame{fill:none;stroke:var(--soft);
stroke-dasharray:4 3}.arrow{stroke:var(--soft);fill:none}.square{fill:var(--card);stroke:var(--c3)}
.square.taken{fill:var(--c3)}
.wide{overflow-x:auto}table{border-collapse:collapse;font-size:.92rem;font-variant-numeric:tabular-nums}
th,td{padding:4px 12px 4px 0;border-bottom:1px solid var(--line);text-align:right;vertical-align:top}
th:first-child,td:first-child,.texts td,.texts th{text-align:left}th{color:var(--soft);font-weight:600}
tr:last-child td{border-bottom:0}td:last-child{white-space:nowrap}.texts td{white-space:normal;overflow-wrap:anywhere}.total td{font-weight:650}
details{margin:.5em 0}summary{cursor:pointer;color:var(--soft)}
.story{background:var(--card);border:1px solid var(--line);border-radius:10px;padding:12px 14px;white-space:pre-wrap;
overflow-wrap:anywhere;line-height:2;margin:.6em 0;max-width:62em}.sample{line-height:1.6}
.token{background:color-mix(in oklab,var(--c) 26%,var(--card));border-bottom:2.5px solid var(--c);padding:2px 0 1px;
border-radius:3px;cursor:default;print-color-adjust:exact;-webkit-print-color-adjust:exact}
.token.none{background:none;border-bottom-color:transparent}
.d1{border-bottom-style:dashed}.d2{border-bottom-style:dotted}.d3{border-bottom-style:double}
.story.one .token:not(.chosen){background:none;border-bottom-color:transparent;color:var(--soft)}
.controls{display:flex;flex-wrap:wrap;gap:6px 16px;align-items:center;margin:.6em 0}
.controls input[type=range]{width:min(320px,60vw);accent-color:var(--c0)}
.experts{display:flex;flex-wrap:wrap;gap:6px}.experts button{font:inherit;font-size:.85rem;color:inherit;cursor:pointer;
padding:1px 9px;border:0;border-bottom:2.5px solid var(--c);border-radius:5px;
background:color-mix(in oklab,var(--c) 26%,var(--card))}
.experts button[aria-pressed=true]{outline:2px solid var(--c)}.js{display:none}.scripted .js{display:flex}
.tip{position:fixed;z-index:9;pointer-events:none;background:var(--ink);color:var(--paper);padding:5px 9px;
border-radius:6px;font-size:.85rem;line-height:1.4;white-space:pre-line;max-width:min(320px,90vw);
font-variant-numeric:tabular-nums}
.typical{list-style:none;margin:0;padding:0;font-size:.92rem}.typical li{margin:.25em 0;overflow-wrap:anywhere}
.piece{font-family:ui-monospace,monospace;font-weight:650;white-space:pre-wrap;padding:0 3px;border-radius:3px;
background:color-mix(in oklab,var(--c) 26%,var(--card))}.context{color:var(--soft);white-space:pre-wrap}
.over input{position:absolute;opacity:0}.over label{padding:3px 11px;border:1px solid var(--line);border-radius:99px;
cursor:pointer;font-size:.92rem}.over{margin:.5em 0;display:block}.over>.grid-of{display:none;margin-top:12px}
.over input:checked+label{background:var(--c0);border-color:var(--c0);color:var(--paper)}
.over input:focus-visible+label{outline:2px solid var(--c0);outline-offset:2px}
.over input:nth-of-type(1):checked~.grid-of:nth-of-type(1),.over input:nth-of-type(2):checked~.grid-of:nth-of-type(2),
.over input:nth-of-type(3):checked~.grid-of:nth-of-type(3){display:grid}
@media print{:root{--paper:#fff;--card:#fff;--ink:#000;--soft:#444;--line:#bbb}body{font-size:11pt}nav,.controls .js,
.over label{display:none}main{max-width:none;padding:0}.grid-of{grid-template-columns:1fr 1fr}h2{break-after:avoid}}
)css";

/// It shows values under the pointer, moves through tokens by the arrow keys, and changes the layer of a story. All
/// data is in attributes, which it only ever shows as text.
inline constexpr const char* report_script = R"js(
'use strict';
document.documentElement.classList.add('scripted');
const tip = document.createElement('div');
tip.className = 'tip'; tip.hidden = true; tip.setAttribute('role', 'status');
document.body.append(tip);
const hide = () => { tip.hidden = true; };
const show = (text, x, y) => {
  tip.textContent = text; tip.hidden = false;
  const box = tip.getBoundingClientRect();
  tip.style.left = Math.max(4, Math.min(x + 12, innerWidth - box.width - 4)) + 'px';
  tip.style.top = (y + 16 + box.height > innerHeight ? y - box.height - 10 : y + 16) + 'px';
};
const clock = (s) => { s = Math.round(s); const two = (n) => String(n).padStart(2, '0'), h = Math.floor(s / 3600);
  return (h ? h + ':' + two(Math.floor(s / 60) % 60) : Math.floor(s / 60)) + ':' + two(s % 60); };
const short = (v) => { const units = ['', 'k', 'M', 'G', 'T', 'P']; let u = 0;
  while (Math.abs(v) >= 999.5 && u < 5) { v /= 1000; ++u; } return Number(v.toPrecision(4)) + units[u]; };
const pair = (text) => text.split(' ').map(Number);

for (const svg of document.querySelectorAll('.plot svg')) {
  const [x0, x1] = pair(svg.dataset.x), [y0, y1] = pair(svg.dataset.y);
  let curves = null, cursor = null, at = 0;
  const open = () => { if (curves) return;
    curves = [...svg.querySelectorAll('.curve')].map((g) => ({ name: g.dataset.name,
      points: g.querySelector('polyline').getAttribute('points').trim().split(/\s+/).filter(Boolean)
        .map((p) => p.split(',').map(Number)) })).filter((c) => c.points.length);
    cursor = document.createElementNS('http://www.w3.org/2000/svg', 'path');
    cursor.setAttribute('class', 'cursor'); svg.append(cursor); };
  const tell = (x, left, top) => { open(); if (!curves.length) return;
    const near = (c) => c.points.reduce((a, b) => Math.abs(b[0] - x) < Math.abs(a[0] - x) ? b : a);
    const value = (p) => y0 + (226 - p[1]) / 214 * (y1 - y0);
    at = x; cursor.setAttribute('d', 'M' + x + ' 12V226');
    const units = x0 + (x - 52) / 376 * (x1 - x0);
    show(('clock' in svg.dataset ? clock(units) :
      short('powers' in svg.dataset ? Number((10 ** units).toPrecision(3)) : units)) + ' ' + svg.dataset.unit + '\n' + curves.map((c) =>
      (c.name ? c.name + ': ' : '') + short(value(near(c)))).join('\n'), left, top); };
  const leave = () => { hide(); if (cursor) cursor.removeAttribute('d'); };
  svg.addEventListener('pointermove', (e) => { const box = svg.getBoundingClientRect();
    const x = Math.max(52, Math.min(428, (e.clientX - box.left) / box.width * 440)); tell(x, e.clientX, e.clientY); });
  svg.addEventListener('pointerleave', leave); svg.addEventListener('blur', leave);
  svg.addEventListener('keydown', (e) => { const by = { ArrowLeft: -8, ArrowRight: 8 }[e.key]; if (!by) return;
    e.preventDefault(); const box = svg.getBoundingClientRect(), x = Math.max(52, Math.min(428, (at || 52) + by));
    tell(x, box.left + x / 440 * box.width, box.top + box.height / 3); });
}

for (const svg of document.querySelectorAll('.map svg')) {
  const d = svg.dataset, rows = +d.rows, columns = +d.columns, bottom = +d.bottom, names = d.names.split('|');
  const [x0, x1] = pair(d.x);
  svg.addEventListener('pointermove', (e) => { const box = svg.getBoundingClientRect();
    const x = (e.clientX - box.left) / box.width * 440, y = (e.clientY - box.top) / box.width * 440;
    const column = Math.floor((x - 52) / 376 * columns), row = Math.floor((y - 6) / (bottom - 6) * rows);
    if (column < 0 || column >= columns || row < 0 || row >= rows) return hide();
    const share = (d.shares.charCodeAt(row * columns + column) - 48) / 8;
    show('expert ' + row + ', ' + (names.length > 1 ? names[column] : d.unit + ' ' +
      short(Math.round(x0 + (column + .5) / columns * (x1 - x0)))) + '\n' + (share >= 8.75 ? 'over 8' : share.toFixed(2)) + ' of an even share', e.clientX, e.clientY); });
  svg.addEventListener('pointerleave', hide);
}

for (const part of document.querySelectorAll('.traced')) {
  const slider = part.querySelector('input[type=range]'), label = part.querySelector('output');
  const story = part.querySelector('.story'), tokens = [...part.querySelectorAll('.token')];
  const names = label.dataset.layers.split('|');
  const choices = tokens.map((t) => (t.dataset.x || '').split(';').map((l) => l.split(',').filter(Boolean)
    .map((p) => p.split(':').map(Number))));
  let layer = 0, chosen = -1;
  tokens.forEach((t, i) => { t.removeAttribute('title'); t.tabIndex = i ? -1 : 0; });
  const text = (i) => { const found = choices[i][layer] || [];
    return '\u201c' + tokens[i].textContent + '\u201d, ' + names[layer] + '\n' + (found.length ? found.map(([e, g]) => 'expert ' + e +
      ': gate ' + g.toFixed(2)).join('\n') : 'no expert'); };
  const draw = () => { label.textContent = names[layer];
    tokens.forEach((t, i) => { const found = choices[i][layer] || [], e = found.length ? found[0][0] : -1;
      t.className = 'token' + (e < 0 ? ' none' : ' c' + e % 8 + ' d' + Math.floor(e / 8) % 4) +
        (found.some((f) => f[0] === chosen) ? ' chosen' : ''); });
    story.classList.toggle('one', chosen >= 0); };
  slider.addEventListener('input', () => { layer = +slider.value; draw(); });
  for (const button of part.querySelectorAll('.experts button')) button.addEventListener('click', () => {
    const e = +button.dataset.expert; chosen = chosen === e ? -1 : e; draw();
    for (const b of part.querySelectorAll('.experts button')) b.setAttribute('aria-pressed', +b.dataset.expert === chosen); });
  const tell = (i) => { const box = tokens[i].getBoundingClientRect(); show(text(i), box.left, box.bottom - 8); };
  story.addEventListener('pointerover', (e) => { const i = tokens.indexOf(e.target.closest('.token'));
    if (i < 0) hide(); else tell(i); });
  story.addEventListener('pointerleave', hide);
  story.addEventListener('focusin', (e) => { const i = tokens.indexOf(e.target); if (i >= 0) tell(i); });
  story.addEventListener('focusout', hide);
  story.addEventListener('keydown', (e) => { const i = tokens.indexOf(document.activeElement);
    const next = { ArrowRight: i + 1, ArrowLeft: i - 1, Home: 0, End: tokens.length - 1, Escape: -2 }[e.key];
    if (next === -2) hide(); if (i < 0 || !(next in tokens)) return; e.preventDefault(); tokens[i].tabIndex = -1;
    tokens[next].tabIndex = 0; tokens[next].focus(); });
  draw();
}
document.addEventListener('scroll', hide, { passive: true });
)js";

}  // namespace tinymoe::inline v0_1::detail
