import { copyFile, rename, rm, stat, unlink, utimes } from 'node:fs/promises';
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
