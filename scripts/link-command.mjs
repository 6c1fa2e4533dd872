/** Makes `femo` a command, and puts it where npx finds it in a clone: npm links those of dependencies, not a project's own. */
import { chmodSync, mkdirSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";

const folder = join("node_modules", ".bin");
chmodSync(join("dist", "cli", "main.js"), 0o755);
mkdirSync(folder, { recursive: true });
if (process.platform === "win32") {
  writeFileSync(join(folder, "femo.cmd"), '@node "%~dp0\\..\\..\\dist\\cli\\main.js" %*\r\n');
} else {
  const link = join(folder, "femo");
  rmSync(link, { force: true });
  symlinkSync(join("..", "..", "dist", "cli", "main.js"), link);
}
