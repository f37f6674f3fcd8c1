import { constants, fstatSync, readSync } from 'node:fs';
import { open, realpath, type FileHandle } from 'node:fs/promises';
import { join, sep } from 'node:path';
import { codeOf } from '../runtime.ts';

/**
 * What is wrong with a file, in words for the person who mends it. It is final once the file has stood still: a file
 * that changed moments ago may just not be whole yet.
 */
export class FileProblem extends Error {
  override name = 'FileProblem';
}

export class FileGone extends Error {
  override name = 'FileGone';
}

/**
 * An open file of the data folder, and the version that was opened. What is small is looked at and read at once: a promise
 * for each step of a usual file costs more time than the step.
 */
export interface DataFile {
  readonly handle: FileHandle;
  readonly size: number;
  readonly mtimeNs: bigint;
}

/** What is final; a file that is not there may be shown late by a network file system, and is looked for again. */
const PROBLEMS: Readonly<Record<string, string>> = {
  ELOOP: 'a link that leads in a circle',
  EACCES: 'may not be read: check its permissions',
  EPERM: 'may not be read: check its permissions',
  ENXIO: 'not a regular file',
  ENOTDIR: 'not a path of the data folder',
  ENAMETOOLONG: 'its path is too long: move it to a folder with a shorter one',
};

/**
 * Opens a regular file that lies in the data folder once links are resolved; never blocks on a FIFO.
 *
 * @param name a path below the data folder that was checked to hold no `..`
 * @throws FileProblem that says why the file cannot be read
 */
export async function openDataFile(dataDir: string, name: string, maxBytes: number): Promise<DataFile> {
  const handle = await openInside(dataDir, name);
  try {
    const stat = fstatSync(handle.fd, { bigint: true });
    if (!stat.isFile()) throw new FileProblem('not a regular file');
    if (stat.size <= maxBytes) return { handle, size: Number(stat.size), mtimeNs: stat.mtimeNs };
    throw new FileProblem(`larger than MAX_FILE_BYTES: ${stat.size} of at most ${maxBytes} bytes`);
  } catch (error) {
    await handle.close();
    throw error;
  }
}

const FLAGS = constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK;

/** The path of a file with all links resolved, also those of the folders above it. */
async function resolveInside(dataDir: string, name: string): Promise<string> {
  const path = await realpath(join(dataDir, name));
  if (`${path}${sep}`.startsWith((await realpath(dataDir)) + sep)) return path;
  throw new FileProblem('a link that leads out of the data folder');
}

async function openInside(dataDir: string, name: string): Promise<FileHandle> {
  const openResolved = async () => open(await resolveInside(dataDir, name), FLAGS);
  try {
    if (name.includes('/')) return await openResolved();
    // Straight in the folder, only a link could lead elsewhere, and that is not followed.
    return await open(join(dataDir, name), FLAGS).catch((error: unknown) => {
      if (codeOf(error) === 'ELOOP') return openResolved();
      throw error;
    });
  } catch (error) {
    const code = codeOf(error);
    if (code in PROBLEMS) throw new FileProblem(PROBLEMS[code], { cause: error });
    if (code !== 'ENOENT') throw error;
    // Node reads bytes that are no UTF-8 as this character, and finds nothing under the name that it makes of them.
    if (name.includes('\uFFFD')) throw new FileProblem('its name is not UTF-8: rename the file');
    throw new FileGone('not in the data folder any more, or a link that leads nowhere', { cause: error });
  }
}

/** Reads a file from its start, so many bytes at a time. */
export async function* readBytes({ handle, size }: DataFile, atOnce: number): AsyncGenerator<Buffer> {
  for (let position = 0; ;) {
    const buffer = Buffer.allocUnsafe(Math.max(1, Math.min(atOnce, size - position)));
    const isSmall = size <= atOnce;
    const bytesRead = isSmall
      ? readSync(handle.fd, buffer, 0, buffer.length, position)
      : (await handle.read(buffer, 0, buffer.length, position)).bytesRead;
    if (bytesRead === 0) return;
    position += bytesRead;
    yield buffer.subarray(0, bytesRead);
    if (position >= size) return;
  }
}

export function isSameVersion({ handle, size, mtimeNs }: DataFile): boolean {
  const now = fstatSync(handle.fd, { bigint: true });
  return Number(now.size) === size && now.mtimeNs === mtimeNs;
}
