import { cp, mkdtemp, readdir, readFile, rm, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { execa } from 'execa';
import { expect, it, onTestFinished } from 'vitest';

const ROOT = resolve(import.meta.dirname, '../..');
const SCRIPT = "(await import('./bin/bootstrap.js')).bootstrap()";

/** A clone of a project that needs but one package, of those that are locked here. */
async function freshClone(): Promise<string> {
  const folder = await mkdtemp(join(tmpdir(), 'bootstrap-'));
  onTestFinished(() => rm(folder, { recursive: true }));
  const lock = JSON.parse(await readFile(join(ROOT, 'package-lock.json'), 'utf8')) as {
    packages: Record<string, { version: string }>;
  };
  const path = 'node_modules/async-mutex';
  const { version = '' } = lock.packages[path] ?? {};
  const packages = { [path]: lock.packages[path], 'node_modules/tslib': lock.packages['node_modules/tslib'] };
  const project = { name: 'clone', version: '1.0.0', type: 'module', dependencies: { 'async-mutex': version } };
  await writeFile(join(folder, 'package.json'), JSON.stringify(project));
  const whole = { name: 'clone', version: '1.0.0', lockfileVersion: 3, packages: { '': project, ...packages } };
  await writeFile(join(folder, 'package-lock.json'), JSON.stringify(whole));
  await cp(join(ROOT, 'bin'), join(folder, 'bin'), { recursive: true });
  return folder;
}

it('first starts at once install once, also after one that was killed, and leave nothing behind', async () => {
  const folder = await freshClone();
  const start = () => execa('node', ['--input-type=module', '-e', SCRIPT], { cwd: folder });
  const said = (await Promise.all([start(), start(), start()])).map(({ stderr }) => stderr);
  expect(said.filter((text) => text.includes('Installing'))).toHaveLength(1);
  expect((await readdir(join(folder, 'node_modules'))).filter((name) => !name.startsWith('.'))).toContain(
    'async-mutex',
  );
  expect((await readdir(folder)).sort()).toEqual(['bin', 'node_modules', 'package-lock.json', 'package.json']);
  expect((await start()).stderr).toBe('');

  await rm(join(folder, 'node_modules'), { recursive: true });
  const dead = await execa('node', ['-p', 'process.pid']);
  await symlink(dead.stdout, join(folder, '.installing'));
  expect((await start()).stderr).toContain('Installing');
  expect((await readdir(folder)).sort()).toEqual(['bin', 'node_modules', 'package-lock.json', 'package.json']);
});
