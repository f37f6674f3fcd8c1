import { spawnSync } from 'node:child_process';
import { readFileSync, readlinkSync, rmSync, symlinkSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

export const ROOT = dirname(dirname(fileURLToPath(import.meta.url)));

/** Says a sentence and ends. @param {string} sentence */
export function give(sentence) {
  process.stderr.write(`${sentence}\n`);
  process.exit(1);
}

/** @param {string} path @returns {Record<string, { version?: string, optional?: boolean }>} */
function packages(path) {
  try {
    return JSON.parse(readFileSync(join(ROOT, path), 'utf8')).packages ?? {};
  } catch {
    return {};
  }
}

/** Whether npm's own record of what is installed differs from the lock; platform packages may be absent. */
function isStale() {
  const installed = packages('node_modules/.package-lock.json');
  return Object.entries(packages('package-lock.json')).some(
    ([path, { version, optional }]) =>
      path !== '' && installed[path]?.version !== version && !(optional && installed[path] === undefined),
  );
}

/** Who installs: a link that names its process, since a link is made at once, with what it says. */
const LOCK = join(ROOT, '.installing');

/** Tries something of the system. Returns the code of what it fails with. @param {() => unknown} action */
function failureOf(action) {
  try {
    action();
    return undefined;
  } catch (error) {
    return /** @type {NodeJS.ErrnoException} */ (error).code;
  }
}

/** Waits until no other process installs: npm takes away first what is there, also from under another. */
function lock() {
  let toldOf = '';
  while (failureOf(() => symlinkSync(String(process.pid), LOCK)) === 'EEXIST') {
    const owner = lockOwner();
    const isDead = owner === String(process.pid) || failureOf(() => process.kill(Number(owner), 0)) === 'ESRCH';
    if (isDead) rmSync(LOCK, { force: true });
    else if (owner !== '' && owner !== toldOf)
      process.stderr.write(`Process ${owner} installs the dependencies; if it does not, remove ${LOCK}.\n`);
    toldOf = owner;
    Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, isDead ? 0 : 200);
  }
  process.once('exit', unlock);
}

/** Its process, as a text; '' where there is none. */
function lockOwner() {
  let owner = '';
  failureOf(() => (owner = readlinkSync(LOCK)));
  return owner;
}

function unlock() {
  if (lockOwner() === String(process.pid)) rmSync(LOCK, { force: true });
}

/** Checks Node and installs the locked dependencies where they are missing or stale; exits with a sentence if it cannot. */
export function bootstrap() {
  const [major = 0, minor = 0] = process.versions.node.split('.').map(Number);
  if (major < 20 || (major === 20 && minor < 19)) {
    give(`This needs Node 20.19 or later, and it runs on ${process.version}: see https://nodejs.org/en/download.`);
  }
  if (!isStale()) return;
  lock();
  if (isStale()) install();
  unlock();
}

function install() {
  process.stderr.write('Installing the locked dependencies (npm ci) …\n');
  const { status, error } = spawnSync('npm', ['ci', '--include=dev', '--no-audit', '--no-fund'], {
    cwd: ROOT,
    // Standard output belongs to the command that comes next.
    stdio: ['ignore', 2, 2],
  });
  if (error !== undefined)
    give(`npm, which comes with Node, cannot be run (${error.message}): install it, then try again.`);
  if (status !== 0) give(`npm ci failed, for the reason above: mend it (often the network), then try again.`);
}
