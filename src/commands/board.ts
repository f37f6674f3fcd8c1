import { createBoard, listen } from '../board/server.ts';
import { openQueues, openStore } from './connect.ts';
import type { Runtime } from './runtime.ts';

/** Serves the overview, Bull Board, metrics and health until asked to stop. */
export async function board(runtime: Runtime): Promise<void> {
  const { config, log, shutdown } = runtime;
  const needs = { ...(await openQueues(runtime)), store: await openStore(runtime), config, log };
  const server = await listen(createBoard(needs), config);
  shutdown.defer('board', server.close);
  log.info({ url: server.url }, 'the board is there');
  await shutdown.requested;
}
