import { utimes, writeFile } from 'node:fs/promises';

const EVERY_MS = 10_000;

/**
 * Touches `file` every ten seconds, so that a health check from outside tells a process that works from one that hangs.
 *
 * @returns ends it
 */
export async function startHeartbeat(file: string): Promise<() => void> {
  await writeFile(file, '');
  const timer = setInterval(() => {
    const now = new Date();
    // A beat that is missed is what the health check is for.
    void utimes(file, now, now).catch(() => undefined);
  }, EVERY_MS);
  return () => clearInterval(timer);
}
