/**
 * Builds `dist`, the contents of the package: the modules that the gateway serves, from `static`,
 * the React hook, and the types of both.
 */

import { execFileSync } from "node:child_process";
import { copyFileSync, cpSync, mkdirSync, rmSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

const here = dirname(fileURLToPath(import.meta.url));
const root = join(here, "..", "..");
const dist = join(here, "dist");

rmSync(dist, { recursive: true, force: true });
mkdirSync(dist);
cpSync(join(root, "static", "client"), join(dist, "client"), { recursive: true });
copyFileSync(join(root, "static", "client.js"), join(dist, "client.js"));
copyFileSync(join(here, "react.js"), join(dist, "react.js"));
copyFileSync(join(root, "LICENSE"), join(here, "LICENSE"));
const tsc = join(here, "node_modules", "typescript", "bin", "tsc");
execFileSync(process.execPath, [tsc, "--project", here], { stdio: "inherit" });
