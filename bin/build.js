import { spawnSync } from 'node:child_process';
import { createHash, randomUUID } from 'node:crypto';
import { existsSync, mkdirSync, readdirSync, readFileSync, renameSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { basename, dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { give, ROOT } from './bootstrap.js';

const SRC = join(ROOT, 'src');
const UNUSED_MS = 3_600_000;
const sources = () => readdirSync(SRC, { recursive: true, encoding: 'utf8' }).filter((file) => file.endsWith('.ts'));

/** A folder beside src/, so that relative paths stay right, named after what it is made of: it is never stale. */
function buildFolder() {
  const hash = createHash('sha256').update(readFileSync(fileURLToPath(import.meta.url)));
  for (const file of sources().sort()) hash.update(file).update(readFileSync(join(SRC, file)));
  return join(ROOT, `.build-${hash.digest('hex').slice(0, 12)}`);
}

/** Strips the types of src/, unless that was done before. Returns the folder with the JavaScript. */
export function build() {
  const folder = buildFolder();
  // In a process of its own, whose memory goes with it.
  if (existsSync(folder)) return folder;
  const { status } = spawnSync(process.execPath, [fileURLToPath(import.meta.url)], {
    encoding: 'utf8',
    stdio: ['ignore', 2, 'pipe'],
  });
  if (status !== 0) give(`The sources cannot be prepared in ${folder}: may this user write there, and is there room?`);
  return folder;
}

/** Whether a folder is of other sources, or of a build that was cut short, and nobody is about to use it. */
function isLeft(path) {
  return basename(path).startsWith('.build-') && Date.now() - statSync(path).mtimeMs > UNUSED_MS;
}

/** The folder appears all at once, by a rename, so several processes may build it together. */
async function compile() {
  const { default: ts } = await import('typescript');
  const folder = buildFolder();
  const temporary = `${folder}.${randomUUID()}`;
  const compilerOptions = {
    target: ts.ScriptTarget.ES2023,
    module: ts.ModuleKind.ESNext,
    verbatimModuleSyntax: true,
    rewriteRelativeImportExtensions: true,
  };
  for (const file of sources()) {
    const path = join(temporary, file.replace(/\.ts$/, '.js'));
    const text = readFileSync(join(SRC, file), 'utf8');
    mkdirSync(dirname(path), { recursive: true });
    writeFileSync(path, ts.transpileModule(text, { compilerOptions, fileName: join(SRC, file) }).outputText);
  }
  try {
    renameSync(temporary, folder);
    for (const name of readdirSync(ROOT)) if (isLeft(join(ROOT, name))) rmSync(join(ROOT, name), { recursive: true });
  } catch (error) {
    if (!existsSync(folder)) throw error;
  } finally {
    rmSync(temporary, { recursive: true, force: true });
  }
}

if (process.argv[1] === fileURLToPath(import.meta.url)) await compile();
