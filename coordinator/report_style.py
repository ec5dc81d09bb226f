"""How report.html looks: one column on a phone, two where there is room, light or dark as the reader's system is."""

STYLE = """
:root {
  color-scheme: light dark;
  --paper: #fefefe; --panel: #f4f6f8; --ink: #1f2933; --soft: #52606d; --grid: #d9dee5;
  --blue: #0a6ebd; --red: #c2410c; --good: #17663a; --warn: #8a5a00; --bad: #b42318;
}
@media (prefers-color-scheme: dark) {
  :root {
    --paper: #14191f; --panel: #1d242c; --ink: #e4e9ee; --soft: #a3b0bd; --grid: #36404b;
    --blue: #6db9f7; --red: #ff9a62; --good: #6fcf97; --warn: #f2c14e; --bad: #ff8a80;
  }
}
* { box-sizing: border-box; }
body {
  margin: 0 auto; padding: 2rem 1rem 3rem; max-width: 68rem;
  background: var(--paper); color: var(--ink);
  font: 16px/1.5 system-ui, "Segoe UI", Roboto, "Helvetica Neue", sans-serif;
}
h1 { margin: 0; font-size: 1.9rem; line-height: 1.2; overflow-wrap: anywhere; }
h2 { margin: 2.5rem 0 .8rem; font-size: 1.3rem; }
h3 { margin: 0 0 .5rem; font-size: 1.05rem; }
p { margin: .4rem 0; }
.soft, figcaption, dt { color: var(--soft); }
.soft code { overflow-wrap: anywhere; font-size: .85rem; }
.state { font-weight: 700; letter-spacing: .03em; }
.SUCCEEDED { color: var(--good); } .INTERRUPTED { color: var(--warn); } .FAILED { color: var(--bad); }
.cards {
  display: grid; grid-template-columns: repeat(auto-fit, minmax(9rem, 1fr)); gap: .7rem; margin: 1.4rem 0 .8rem;
}
.cards div { padding: .7rem .9rem; background: var(--panel); border-radius: .5rem; }
.cards dt { font-size: .85rem; }
.cards dd { margin: 0; font-size: 1.35rem; font-weight: 600; line-height: 1.3; font-variant-numeric: tabular-nums; }
.cards dd small { display: block; color: var(--soft); font-size: .85rem; font-weight: 400; }
.figures {
  display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 28rem), 1fr)); gap: 2rem 1.8rem;
  margin-top: 1rem;
}
figure { margin: 0; min-width: 0; }
figcaption { font-size: .93rem; margin-top: .3rem; }
svg { display: block; width: 100%; height: auto; }
svg * { stroke-linejoin: round; stroke-linecap: butt; }
details { margin-top: .4rem; font-size: .9rem; }
summary { cursor: pointer; color: var(--blue); }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .25rem 1rem .25rem 0; border-bottom: 1px solid var(--grid); text-align: right; vertical-align: top; }
th { font-weight: 600; }
.final { width: 100%; }
.final th, .final td { text-align: left; overflow-wrap: anywhere; }
.final th { width: 14rem; font-weight: 400; color: var(--soft); }
.parts { width: 100%; }
.parts th:first-child { text-align: left; }
.parts tbody th { font-weight: 400; }
.parts tbody tr:last-child > * { border-top: 1px solid var(--ink); font-weight: 600; }
.parts tfoot th { font-weight: 400; }
.parts + p { margin-top: .8rem; font-size: .93rem; }
pre { margin: 0; padding: 1rem; overflow-x: auto; background: var(--panel); border-radius: .5rem; font-size: .87rem; }
code, pre { font-family: ui-monospace, "SFMono-Regular", Menlo, Consolas, "DejaVu Sans Mono", monospace; }
@media (max-width: 30rem) { .final th { width: 8rem; } th, td { padding-right: .7rem; } }
@media print { body { max-width: none; padding: 0; } figure { break-inside: avoid; } }
"""
