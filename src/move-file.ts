import { randomUUID } from 'node:crypto';
import { existsSync } from 'node:fs';
import { copyFile, link, rename, rm, stat, unlink, utimes } from 'node:fs/promises';
import { dirname, join } from 'node:path';
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
    await copyWithTimes(from, copy);
    await rename(copy, copyTo);
  } finally {
    await rm(copy, { force: true });
  }
  await unlink(from);
}

/** Moves a file to where none is. Resolves to whether it did: one that is there stays, and so does this one then. */
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

/** The same within a file system. */
async function placeAt(from: string, to: string): Promise<boolean> {
  try {
    await link(from, to);
  } catch (error) {
    if (codeOf(error) === 'EXDEV') throw error;
    if (codeOf(error) === 'EEXIST' || existsSync(to)) return false;
    // Not every file system has hard links, and Linux forbids them to files of other users.
    await rename(from, to);
    return true;
  }
  await unlink(from);
  return true;
}

async function copyWithTimes(from: string, to: string): Promise<void> {
  await copyFile(from, to);
  const { atimeMs, mtimeMs } = await stat(from);
  await utimes(to, atimeMs / 1_000, mtimeMs / 1_000);
}
