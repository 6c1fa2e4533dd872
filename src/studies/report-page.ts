import { Html, html, inlineScript, scriptJson } from "./html.js";
import { reportStyle } from "./report-style.js";

/** What a report says, around which the page is the same. */
export interface ReportPage {
  /** The command that made it. */
  readonly command: string;
  readonly title: string;
  readonly lead: string;
  readonly facts: Readonly<Record<string, string>>;
  readonly sections: readonly (Html | false | undefined)[];
  /** What scripts read of the element "data". */
  readonly data: unknown;
  /** Classic scripts, run in turn. */
  readonly scripts: readonly string[];
}

/** A report as one HTML page that needs nothing else: images, charts, scripts and styles are in it. */
export const reportPage = ({ command, title, lead, facts, sections, data, scripts }: ReportPage): string =>
  html`<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="generator" content="${command}">
<meta name="color-scheme" content="light dark">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'">
<title>${title}</title>
<style>${new Html(reportStyle)}</style>
</head>
<body>
<main>
<header>
<p class="kicker">${command}</p>
<h1>${title}</h1>
<p class="lead">${lead}</p>
<dl class="facts">${Object.entries(facts).map(([name, value]) => html`<div><dt>${name}</dt><dd>${value}</dd></div>`)}</dl>
</header>
${sections.map((section) => section && html`${section}\n`)}</main>
<script type="application/json" id="data">${scriptJson(data)}</script>
${scripts.map(inlineScript)}
</body>
</html>
`.toString();
