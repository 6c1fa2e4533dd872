/** Script after Chart.js and before those that draw: `colorOf` a custom property, `axis` of a scale in the page's colours, and `errorBar` of a point. */
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
/** So much up and down from y. */
const errorBar = ({ ctx, scales }, point, y, half, color, width) => {
  ctx.save();
  ctx.strokeStyle = color;
  ctx.lineWidth = width;
  ctx.beginPath();
  ctx.moveTo(point.x, scales.y.getPixelForValue(y - half));
  ctx.lineTo(point.x, scales.y.getPixelForValue(y + half));
  ctx.stroke();
  ctx.restore();
};
`;
