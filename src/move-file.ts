import { randomUUID } from 'node:crypto';
import { lstatSync } from 'node:fs';
import { copyFile, link, open, rename, rm, stat, unlink } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { codeOf } from './runtime.ts';

/**
 * Moves a file to where none is. Resolves to whether it did: one that is there stays, and so does this one then. On another
 * file system it becomes a copy, whose modification time is no more exact than Node can set one, to the microsecond: it is no
 * longer the same version.
 */
export async function moveToFree(from: string, to: string): Promise<boolean> {
  try {
    return await placeAt(from, to);
  } catch (error) {
    if (codeOf(error) !== 'EXDEV') throw error;
  }
  const copy = join(dirname(to), `.${randomUUID()}`);
  try {
    await copyWithTimes(from, copy);
    if (!(await placeAt(copy, to))) return false;
  } finally {
    await rm(copy, { force: true });
  }
  await unlink(from);
  return true;
}

/** The same within a file system. @throws EXDEV where `to` is on another one */
export async function placeAt(from: string, to: string): Promise<boolean> {
  try {
    await link(from, to);
  } catch (error) {
    if (codeOf(error) === 'EXDEV') throw error;
    const there = lstatSync(to, { bigint: true, throwIfNoEntry: false });
    if (there === undefined) {
      // Not every file system has hard links, and Linux forbids them to files of other users.
      await rename(from, to);
      return true;
    }
    // Unless a move that was cut short has left both.
    const own = lstatSync(from, { bigint: true });
    if (there.ino !== own.ino || there.dev !== own.dev) return false;
  }
  await unlink(from);
  return true;
}

/** The copy is on disk then, as the file that it is of is about to go. */
async function copyWithTimes(from: string, to: string): Promise<void> {
  await copyFile(from, to);
  const { atimeMs, mtimeMs } = await stat(from);
  const copy = await open(to, 'r+');
  try {
    await copy.utimes(atimeMs / 1_000, mtimeMs / 1_000);
    await copy.sync();
  } finally {
    await copy.close();
  }
}
