import { closeSync, constants, existsSync, fstatSync, open, read, readSync } from 'node:fs';
import { realpath } from 'node:fs/promises';
import { join, sep } from 'node:path';
import { promisify } from 'node:util';
import { FILE_GONE } from '../queues/dead-letter.ts';
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

/** Why a file is looked at again in a moment, which costs no attempt. */
export class NotNow extends Error {
  override name = 'NotNow';
}

/**
 * An open file of the data folder, and the version that was opened; it is its opener's to close. What is small is looked
 * at, read and closed at once: a promise for each step of a usual file costs more time than the step.
 */
export interface DataFile {
  /** The file descriptor. */
  readonly fd: number;
  readonly size: number;
  /** As jobs and the ledger have it. */
  readonly mtimeNs: string;
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
  const fd = await openInside(dataDir, name);
  try {
    const stat = fstatSync(fd, { bigint: true });
    if (!stat.isFile()) throw new FileProblem('not a regular file');
    if (stat.size <= maxBytes) return { fd, size: Number(stat.size), mtimeNs: String(stat.mtimeNs) };
    throw new FileProblem(`larger than MAX_FILE_BYTES: ${stat.size} of at most ${maxBytes} bytes`);
  } catch (error) {
    closeSync(fd);
    throw error;
  }
}

export const closeDataFile = ({ fd }: DataFile) => closeSync(fd);

const openFile = promisify(open);
const readAsync = promisify(read);
const FLAGS = constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK;

/** The path of a file with all links resolved, also those of the folders above it. */
async function resolveInside(dataDir: string, name: string): Promise<string> {
  const path = await realpath(join(dataDir, name));
  if (`${path}${sep}`.startsWith((await realpath(dataDir)) + sep)) return path;
  throw new FileProblem('a link that leads out of the data folder');
}

async function openInside(dataDir: string, name: string): Promise<number> {
  const openResolved = async () => openFile(await resolveInside(dataDir, name), FLAGS);
  try {
    if (name.includes('/')) return await openResolved();
    // Straight in the folder, only a link could lead elsewhere, and that is not followed.
    return await openFile(join(dataDir, name), FLAGS).catch((error: unknown) => {
      if (codeOf(error) === 'ELOOP') return openResolved();
      throw error;
    });
  } catch (error) {
    const code = codeOf(error);
    if (code in PROBLEMS) throw new FileProblem(PROBLEMS[code], { cause: error });
    if (code !== 'ENOENT') throw error;
    // Node reads bytes that are no UTF-8 as this character, and finds nothing under the name that it makes of them.
    if (name.includes('\uFFFD')) throw new FileProblem('its name is not UTF-8: rename the file and discard this');
    // As where a mount is missing: nothing is said about its files.
    if (!existsSync(dataDir)) throw new NotNow('the data folder is not there', { cause: error });
    throw new FileGone(FILE_GONE, { cause: error });
  }
}

/** Reads a file of a few hundred kilobytes at most, at once. */
export function readWhole({ fd, size }: DataFile): Buffer {
  const buffer = Buffer.allocUnsafe(size);
  for (let position = 0; position < size;) {
    const bytesRead = readSync(fd, buffer, position, size - position, position);
    if (bytesRead === 0) return buffer.subarray(0, position);
    position += bytesRead;
  }
  return buffer;
}

/** Reads a file from its start, so many bytes at a time. */
export async function* readBytes({ fd, size }: DataFile, atOnce: number): AsyncGenerator<Buffer> {
  for (let position = 0; position < size;) {
    const buffer = Buffer.allocUnsafe(Math.min(atOnce, size - position));
    const { bytesRead } = await readAsync(fd, buffer, 0, buffer.length, position);
    if (bytesRead === 0) return;
    position += bytesRead;
    yield buffer.subarray(0, bytesRead);
  }
}

export function isSameVersion({ fd, size, mtimeNs }: DataFile): boolean {
  const now = fstatSync(fd, { bigint: true });
  return Number(now.size) === size && String(now.mtimeNs) === mtimeNs;
}
