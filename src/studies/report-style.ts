/** Style sheet of the comparison report. */
export const reportStyle = `
:root {
  color-scheme: light dark;
  --ground: light-dark(#f6f6f3, #14161a);
  --card: light-dark(#ffffff, #1c1f25);
  --text: light-dark(#1d2026, #e8e9ec);
  --muted: light-dark(#5d636e, #a1a7b3);
  --line: light-dark(#e2e2dc, #30343d);
  --accent: light-dark(#1f63a8, #77b3ee);
}
* { box-sizing: border-box; }
body {
  margin: 0; background: var(--ground); color: var(--text);
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", sans-serif;
  font-variant-numeric: tabular-nums;
}
main { max-width: 1120px; margin: 0 auto; padding: 48px 20px 64px; }
h1 { font-size: clamp(1.6rem, 4vw, 2.3rem); line-height: 1.15; letter-spacing: -.02em; margin: 0; overflow-wrap: anywhere; }
h2 { font-size: 1.15rem; letter-spacing: -.01em; margin: 0 0 16px; }
.kicker { margin: 0 0 8px; font-size: .8rem; font-weight: 650; letter-spacing: .08em; text-transform: uppercase; color: var(--accent); }
.lead { max-width: 44rem; margin: 12px 0 28px; color: var(--muted); }
.facts { display: flex; flex-wrap: wrap; gap: 14px 40px; margin: 0 0 32px; }
.facts div { min-width: 0; }
dt { font-size: .78rem; color: var(--muted); }
dd { margin: 0; overflow-wrap: anywhere; }
section { background: var(--card); border: 1px solid var(--line); border-radius: 14px; padding: 24px; margin: 0 0 20px; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; }
th { font-weight: 550; text-align: left; white-space: nowrap; }
thead th { font-size: .78rem; font-weight: 500; color: var(--muted); vertical-align: bottom; }
.summary th, .summary td { padding: 9px 14px; border-bottom: 1px solid var(--line); }
.summary tbody tr:last-child > * { border-bottom: 0; }
.summary tbody tr:hover { background: color-mix(in srgb, var(--accent) 7%, transparent); }
.summary td, .summary thead th:not(:first-child) { text-align: right; white-space: nowrap; }
.summary th:first-child { padding-left: 0; }
.summary tr > :last-child { padding-right: 0; }
.term { border-bottom: 1px dotted; cursor: help; }
.swatch { display: inline-block; width: 11px; height: 11px; border-radius: 3px; margin-right: 10px; }
details { margin-top: 14px; font-size: .88rem; }
details > summary { cursor: pointer; color: var(--accent); width: fit-content; }
.meanings { display: grid; grid-template-columns: max-content 1fr; gap: 6px 20px; margin: 12px 0 0; }
.meanings dt { font-size: inherit; }
code { font: .92em ui-monospace, "SF Mono", Menlo, Consolas, monospace; overflow-wrap: anywhere; }
.note { margin: 14px 0 0; font-size: .85rem; color: var(--muted); max-width: 48rem; }
.chart { position: relative; height: 340px; }
.chart.tall { height: 560px; }
h3 { font-size: .95rem; margin: 22px 0 6px; }
select { font: inherit; color: inherit; background: var(--ground); border: 1px solid var(--line); border-radius: 8px; padding: 3px 8px; }
.choice { border: 0; padding: 0; margin: 0 0 12px; display: flex; flex-wrap: wrap; gap: 4px 18px; font-size: .9rem; }
.choice legend { float: left; padding: 0; margin-right: 18px; color: var(--muted); }
.choice input { accent-color: var(--accent); }
.strips { display: grid; gap: 10px; }
.strip-row { display: grid; grid-template-columns: 170px 1fr 74px; gap: 14px; align-items: center; font-size: .9rem; }
.strip-name { font-weight: 550; overflow-wrap: anywhere; }
.strip-count { color: var(--muted); text-align: right; font-size: .82rem; }
.strip { display: flex; gap: 2px; height: 26px; }
.strip i { flex: 1; min-width: 0; border-radius: 3px; background: color-mix(in srgb, var(--color) 18%, transparent); }
.strip i.full { background: var(--color); }
.strip i:hover { outline: 2px solid var(--text); outline-offset: 1px; }
.key { display: inline-block; width: 12px; height: 12px; border-radius: 3px; vertical-align: -1px; margin-left: 6px;
  background: color-mix(in srgb, var(--accent) 22%, transparent); }
.key.full { background: var(--accent); }
.images th, .images td { padding: 4px 5px; text-align: center; }
.images tr > th:first-child {
  text-align: left; position: sticky; left: 0; z-index: 1; background: var(--card); padding: 4px 14px 4px 0;
}
.images tbody tr > th { font-size: .9rem; }
.images img { display: block; width: 100%; min-width: 68px; max-width: 160px; height: auto; margin: 0 auto; border-radius: 8px; image-rendering: pixelated; background: #fff; }
.images td.swapped img { outline: 2px solid var(--accent); outline-offset: 1px; }
small { display: block; font-size: .74rem; font-weight: 400; color: var(--muted); }
#tip {
  position: fixed; z-index: 9; pointer-events: none; white-space: pre-line; max-width: 280px; padding: 8px 11px;
  border-radius: 8px; font-size: .8rem; line-height: 1.4; background: var(--text); color: var(--ground);
}
@media (max-width: 640px) {
  main { padding: 28px 12px 40px; }
  section { padding: 18px 14px; border-radius: 12px; }
  .strip-row { grid-template-columns: 1fr auto; gap: 2px 10px; }
  .strip { grid-column: 1 / -1; grid-row: 2; gap: 1px; }
  .meanings { grid-template-columns: 1fr; gap: 0; }
  .meanings dd { margin-bottom: 8px; }
}
@media print { section { break-inside: avoid; } body { background: none; } }
`;
