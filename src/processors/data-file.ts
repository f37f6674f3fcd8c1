import { constants } from 'node:fs';
import { open, realpath, type FileHandle } from 'node:fs/promises';
import { join, sep } from 'node:path';

/**
 * What is wrong with a file, in words for the person who mends it. It is final once the file has stood still: a file
 * that changed moments ago may just not be whole yet.
 */
export class FileProblem extends Error {
  override name = 'FileProblem';
}

/** An open file of the data folder, and the version that was opened. */
export interface DataFile {
  readonly handle: FileHandle;
  readonly size: number;
  readonly mtimeNs: bigint;
}

/**
 * Opens a regular file that lies in the data folder once links are resolved; never blocks on a FIFO.
 *
 * @param name a path below the data folder that was checked to hold no `..`
 * @throws FileProblem that says why the file cannot be read
 */
export async function openDataFile(dataDir: string, name: string, maxBytes: number): Promise<DataFile> {
  const handle = await openInside(dataDir, name);
  try {
    const { size, mtimeNs, isFile } = await statOf(handle);
    if (!isFile) throw new FileProblem('not a regular file');
    if (size > maxBytes) throw new FileProblem(`larger than MAX_FILE_BYTES: ${size} of at most ${maxBytes} bytes`);
    return { handle, size, mtimeNs };
  } catch (error) {
    await handle.close();
    throw error;
  }
}

/** Whether the open file still is the version that was opened. */
export async function isSameVersion({ handle, size, mtimeNs }: DataFile): Promise<boolean> {
  const now = await statOf(handle);
  return now.size === size && now.mtimeNs === mtimeNs;
}

async function statOf(handle: FileHandle) {
  const stat = await handle.stat({ bigint: true });
  return { size: Number(stat.size), mtimeNs: stat.mtimeNs, isFile: stat.isFile() };
}

async function openInside(dataDir: string, name: string): Promise<FileHandle> {
  try {
    const path = await realpath(join(dataDir, name));
    if (!path.startsWith((await realpath(dataDir)) + sep)) {
      throw new FileProblem('a link that leads out of the data folder');
    }
    return await open(path, constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK);
  } catch (error) {
    if (error instanceof Error && 'code' in error && error.code === 'ENOENT') {
      throw new Error('not in the data folder any more, or a link that leads nowhere', { cause: error });
    }
    const reason = problemOf(error);
    throw reason === undefined ? error : new FileProblem(reason);
  }
}

/** undefined for what may pass by itself: a network file system may show a file late, or not at all for a while. */
function problemOf(error: unknown): string | undefined {
  if (!(error instanceof Error) || !('code' in error)) return undefined;
  switch (error.code) {
    case 'ELOOP':
      return 'a link that leads in a circle';
    case 'EACCES':
    case 'EPERM':
      return 'may not be read: check its permissions';
    case 'ENXIO':
      return 'not a regular file';
    case 'ENOTDIR':
    case 'ENAMETOOLONG':
      return 'not a path of the data folder';
    default:
      return undefined;
  }
}
