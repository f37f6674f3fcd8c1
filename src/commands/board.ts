import { createBoard, listen } from '../board/server.ts';
import { openQueues, openStore } from './connect.ts';
import type { Runtime } from './runtime.ts';

/** Serves the overview, Bull Board, metrics and health until asked to stop. */
export async function board(runtime: Runtime): Promise<void> {
  const { config, log, shutdown } = runtime;
  const opened = await openQueues(runtime);
  const store = await openStore(runtime);
  const server = await listen(createBoard({ ...opened, store, config, log }), config);
  shutdown.defer('board', server.close);
  log.info({ url: server.url }, 'the board is there');
  await shutdown.requested;
}
