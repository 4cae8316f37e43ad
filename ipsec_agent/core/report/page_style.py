"""The style sheet of the report's page, for bright and dark screens."""

RULES = """
:root { color-scheme: light dark;
  --back: #fff; --text: #1a1a1a; --faint: #5f6368; --line: #d5d8dc; --head: #f3f4f6;
  --esp: #cdeccd; --on-esp: #0b4a1e; --clear: #c62828; --on-clear: #fff;
  --dropped: #f6c26b; --on-dropped: #3b2500; --fails: #5b4a8a; --on-fails: #fff;
  --odd: #7fc4f2; --on-odd: #062a45; --self: #b9bec5; }
@media (prefers-color-scheme: dark) { :root {
  --back: #16181c; --text: #e6e8eb; --faint: #a2a8b0; --line: #3a3f47; --head: #23272e;
  --esp: #1f4a2c; --on-esp: #c4f0cf; --clear: #ff6b62; --on-clear: #240000;
  --dropped: #b57a17; --on-dropped: #fff; --fails: #b9a7ee; --on-fails: #1b1040;
  --odd: #2b78ad; --on-odd: #fff; --self: #565c66; } }
body { background: var(--back); color: var(--text); margin: 1.5rem; max-width: 100%;
  font: 15px/1.45 system-ui, sans-serif; overflow-wrap: anywhere; }
h1 { font-size: 1.4rem; } h2 { font-size: 1.1rem; margin: 1.6rem 0 .4rem; }
.verdict, .well { font-size: 1.15rem; border-left: .4rem solid var(--clear); padding: .3rem .8rem; }
.well { border-color: #2e9e4f; }
ul { padding-left: 0; list-style: none; margin: .3rem 0; }
li { padding: .25rem .6rem; border-left: .25rem solid var(--line); margin: .25rem 0; }
li.warning { border-color: var(--dropped); } li.error, li.critical { border-color: var(--clear); }
.hint { color: var(--faint); }
.legend li { border: 0; padding: .1rem 0; margin: 0; }
.cell { display: inline-block; width: 1.6em; text-align: center; border: 1px solid var(--line); }
.scroll { overflow: auto; max-height: 92vh; border: 1px solid var(--line); width: fit-content;
  max-width: 100%; }
table { border-collapse: separate; border-spacing: 0; overflow-wrap: normal; }
th, td { text-align: left; padding: .2rem .5rem; border-bottom: 1px solid var(--line);
  white-space: nowrap; font-weight: normal; }
thead th { position: sticky; top: 0; background: var(--head); z-index: 1; vertical-align: bottom; }
tbody th { position: sticky; left: 0; background: var(--head); }
.matrix .corner { left: 0; z-index: 2; }
.matrix thead span { writing-mode: vertical-rl; transform: rotate(180deg); }
.matrix thead th { padding: .3rem 0; text-align: center; }
.matrix td { width: 1.6rem; min-width: 1.6rem; padding: 0; text-align: center; line-height: 1.6rem;
  border-left: 1px solid var(--line); }
.matrix.dense { font-size: 9px; }
.matrix.dense td { width: 12px; min-width: 12px; line-height: 12px; }
.matrix.dense th { padding: 0 .3rem; } .matrix.dense thead th { padding: .2rem 0; }
tbody th.warning { box-shadow: inset .25rem 0 var(--dropped); }
tbody th.error, tbody th.critical { box-shadow: inset .25rem 0 var(--clear); }
.esp { background: var(--esp); color: var(--on-esp); }
.clear { background: var(--clear); color: var(--on-clear); font-weight: bold; }
.dropped { background: var(--dropped); color: var(--on-dropped); font-weight: bold; }
.fails { background: var(--fails); color: var(--on-fails); font-weight: bold; }
.odd { background: var(--odd); color: var(--on-odd); font-weight: bold; }
.self { background: var(--self); }
tbody tr:hover th, tbody tr:hover td { outline: 1px solid var(--faint); }
@media print { .scroll { max-height: none; overflow: visible; } }
"""
