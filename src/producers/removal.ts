import { randomUUID } from 'node:crypto';
import { existsSync, statSync } from 'node:fs';
import { lstat, mkdir, readlink, rename, rmdir, unlink } from 'node:fs/promises';
import { hostname } from 'node:os';
import { dirname, join, resolve, sep } from 'node:path';
import type { Logger } from 'pino';
import { moveFile, moveToFree } from '../move-file.ts';
import { versionOf, type IngestJob } from '../queues/ingest.ts';
import { codeOf } from '../runtime.ts';
import { pathsBelow, placesOf, versionNow } from '../data-folder.ts';
import type { FileVersion } from '../datasets/dataset.ts';

/** A hidden folder of the data folder for files that are on their way out, each in a folder of its own: two may have one name. */
const LEAVING_FOLDER = '.leaving';
/** What such folders of this process begin with. */
const OWN = `${hostname()}:${process.pid}:`;
/** One that is older is held by nobody any more. */
const ABANDONED_MS = 900_000;

/**
 * Takes a version of a file out of the data folder, into its archive folder or for good. Resolves to whether it did: the
 * provider may have put another version in its place up to the last moment, which stays.
 */
export async function takeOut(dataDir: string, file: IngestJob, isArchived: boolean): Promise<boolean> {
  const path = join(dataDir, file.name);
  const leaving = join(LEAVING_FOLDER, `${OWN}${randomUUID()}`, file.name);
  const held = join(dataDir, leaving);
  await mkdir(dirname(held), { recursive: true });
  try {
    // Another process may have been faster.
    if (!(await isMoved(path, held))) return false;
    // Nobody can change any more which version it is.
    const isLink = (await lstat(held)).isSymbolicLink();
    const there = versionNow('', isLink ? resolve(dirname(path), await readlink(held)) : held);
    // What a link led to may have left before it.
    const isSame = there === undefined ? isLink : versionOf(there) === versionOf(file);
    // A link is no data; what it leads to is a file of its own.
    const version = { name: file.name, version: versionOf(file) };
    const leave = () => (isArchived && !isLink ? archive(dataDir, held, version) : unlink(held));
    if (!isSame) await putBack(held, path);
    else
      await leave().catch(async (error: unknown) => {
        await putBack(held, path);
        throw error;
      });
    return isSame;
  } finally {
    await removeEmpty(dataDir, leaving);
  }
}

async function isMoved(from: string, to: string): Promise<boolean> {
  try {
    await rename(from, to);
    return true;
  } catch (error) {
    if (codeOf(error) !== 'ENOENT') throw error;
    return false;
  }
}

/** Removes the folders in which a file was held, those that nothing else is held in. */
async function removeEmpty(dataDir: string, leaving: string): Promise<void> {
  for (let folder = dirname(leaving); folder !== LEAVING_FOLDER; folder = dirname(folder))
    if ((await rmdir(join(dataDir, folder)).catch(codeOf)) !== undefined) return;
}

/**
 * Moves a file into the archive, which may be a file system of its own. It carries its version in its name where an earlier
 * one of the name is there, and where it becomes a copy, of which nothing else tells the version.
 */
async function archive(dataDir: string, held: string, version: FileVersion): Promise<void> {
  const [, plain, versioned] = placesOf(version);
  const [wanted, withVersion] = [join(dataDir, plain), join(dataDir, versioned)];
  await mkdir(dirname(wanted), { recursive: true });
  await moveFile(held, existsSync(wanted) ? withVersion : wanted, withVersion);
}

/** A newer version that lies there by now stays; the provider has replaced this one itself. */
async function putBack(held: string, path: string): Promise<void> {
  await mkdir(dirname(path), { recursive: true });
  if (!(await moveToFree(held, path))) await unlink(held);
}

/**
 * Puts back what was on its way out when a process died, or could not be put back. Unless it is the start of this one, what
 * another process may hold right now is left to that; at the start, such a file is taken out once more.
 */
export async function putBackLeaving(dataDir: string, log: Logger, isStart: boolean): Promise<void> {
  const isLeft = (path: string) => {
    const [, id = '', ...below] = path.split(sep);
    if (isStart || below.length > 0 || id.startsWith(OWN)) return true;
    const heldSince = statSync(join(dataDir, path), { throwIfNoEntry: false })?.mtimeMs ?? Infinity;
    return Date.now() - heldSince > ABANDONED_MS;
  };
  for (const path of [...pathsBelow(dataDir, LEAVING_FOLDER, isLeft)]) {
    if (!isLeft(path)) continue;
    const [, id = '', ...parts] = path.split(sep);
    const name = parts.join(sep) || id; // somebody else's, if it is in no folder of its own
    await putBack(join(dataDir, path), join(dataDir, name)).catch((error: unknown) => {
      log.warn({ file: name, err: error }, 'a file on its way out could not be put back');
    });
    await removeEmpty(dataDir, path);
  }
}
