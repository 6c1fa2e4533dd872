/** How long something takes, to a person: "40 s", "12 min", "1.7 h", "5 days". @param seconds at least 0 */
export function durationText(seconds: number): string {
  const [whole, minutes, hours] = [Math.ceil(seconds), Math.ceil(seconds / 60), seconds / 3600];
  if (whole < 60) return `${whole} s`;
  if (minutes < 60) return `${minutes} min`;
  return hours < 48 ? `${hours.toFixed(1)} h` : `${Math.round(hours / 24)} days`;
}
