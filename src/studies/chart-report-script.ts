/** Script after Chart.js and before those that draw: `colorOf` a custom property, and `axis` of a scale in the page's colours. */
export const chartBasics = `
"use strict";
const colorOf = (name) => {
  const probe = document.createElement("span");
  probe.style.color = "var(" + name + ")";
  document.body.append(probe);
  const { color } = getComputedStyle(probe);
  probe.remove();
  return color;
};
Chart.defaults.font.family = getComputedStyle(document.body).fontFamily;
Chart.defaults.maintainAspectRatio = false;
Chart.defaults.animation = false;
const axis = (title, { ticks, ...scale } = {}) => ({
  title: { display: true, text: title, color: colorOf("--muted") },
  ticks: { color: colorOf("--muted"), ...ticks },
  grid: { color: colorOf("--line") },
  border: { color: colorOf("--line") },
  ...scale,
});
`;
