import { existsSync } from 'node:fs';
import { link, lstat, mkdir, opendir, rename, unlink } from 'node:fs/promises';
import { dirname, join, relative } from 'node:path';
import { moveFile } from '../move-file.ts';
import { versionOf, type IngestJob } from '../queues/ingest.ts';
import { ARCHIVE_FOLDER, versionNow } from './data-folder.ts';

/** A hidden folder of the data folder for files that are on their way out. */
const LEAVING_FOLDER = '.leaving';

/**
 * Takes a version of a file out of the data folder, into its archive folder or for good. Resolves to whether it did: the
 * provider may have put another version in its place up to the last moment, which stays.
 */
export async function takeOut(dataDir: string, file: IngestJob, isArchived: boolean): Promise<boolean> {
  const path = join(dataDir, file.name);
  // A link is no data; what it leads to is a file of its own.
  if ((await lstat(path)).isSymbolicLink()) {
    await unlink(path);
    return true;
  }
  const held = join(dataDir, LEAVING_FOLDER, file.name);
  await mkdir(dirname(held), { recursive: true });
  await rename(path, held);
  // Nobody can change any more which version it is.
  const there = versionNow(join(dataDir, LEAVING_FOLDER), file.name);
  if (there === undefined || versionOf(there) !== versionOf(file)) {
    await putBack(held, path);
    return false;
  }
  try {
    if (isArchived) await archive(held, join(dataDir, ARCHIVE_FOLDER, file.name), versionOf(file));
    else await unlink(held);
    return true;
  } catch (error) {
    await putBack(held, path);
    throw error;
  }
}

/**
 * Moves a file into the archive, which may be a file system of its own. It carries its version in its name where an earlier
 * one of the name is there, and where it becomes a copy, of which nothing else tells the version.
 */
async function archive(held: string, wanted: string, version: string): Promise<void> {
  const withVersion = `${wanted}.${version}`;
  await mkdir(dirname(wanted), { recursive: true });
  await moveFile(held, existsSync(wanted) ? withVersion : wanted, withVersion);
}

const codeOf = (error: unknown) => (error instanceof Error && 'code' in error ? error.code : undefined);

/** A newer version that lies there by now stays; the provider has replaced this one itself. */
async function putBack(held: string, path: string): Promise<void> {
  await mkdir(dirname(path), { recursive: true });
  await link(held, path).catch((error: unknown) => {
    if (codeOf(error) !== 'EEXIST') throw error;
  });
  await unlink(held);
}

/** Puts back what was on its way out when the process died. */
export async function putBackLeaving(dataDir: string): Promise<void> {
  const folder = join(dataDir, LEAVING_FOLDER);
  const entries = await opendir(folder, { recursive: true }).catch(() => []);
  for await (const entry of entries) {
    const held = join(entry.parentPath, entry.name);
    if (!entry.isDirectory()) await putBack(held, join(dataDir, relative(folder, held)));
  }
}
