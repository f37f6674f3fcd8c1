import { existsSync } from 'node:fs';
import { copyFile, link, rename, rm, stat, unlink, utimes } from 'node:fs/promises';
import { codeOf } from './runtime.ts';

/**
 * Moves a file, also to another file system, where it becomes a copy: `copyTo`, if that is to have another name. A copy has
 * the modification time only as far as Node can set one, to the microsecond, so that it is no longer the same version.
 */
export async function moveFile(from: string, to: string, copyTo = to): Promise<void> {
  try {
    await rename(from, to);
    return;
  } catch (error) {
    if (codeOf(error) !== 'EXDEV') throw error;
  }
  const copy = `${copyTo}.tmp`;
  try {
    await copyFile(from, copy);
    const { atimeMs, mtimeMs } = await stat(from);
    await utimes(copy, atimeMs / 1_000, mtimeMs / 1_000);
    await rename(copy, copyTo);
  } finally {
    await rm(copy, { force: true });
  }
  await unlink(from);
}

/** Moves a file to where none is. Resolves to whether it did: one that is there stays, and so does this one then. */
export async function moveToFree(from: string, to: string): Promise<boolean> {
  try {
    await link(from, to);
  } catch (error) {
    // Not every file system has hard links, and Linux forbids them to files of other users.
    if (codeOf(error) === 'EEXIST' || existsSync(to)) return false;
    await moveFile(from, to);
    return true;
  }
  await unlink(from);
  return true;
}
