import { createBoard, listen } from '../board/server.ts';
import type { Runtime } from '../runtime.ts';
import { openAll } from './connect.ts';

/** Serves the overview, Bull Board, metrics and health until asked to stop. */
export async function board(runtime: Runtime): Promise<void> {
  const { config, log, shutdown } = runtime;
  const server = await listen(createBoard(await openAll(runtime)), config);
  shutdown.defer('board', server.close);
  log.info({ url: server.url }, 'the board is there');
  await shutdown.requested;
}
