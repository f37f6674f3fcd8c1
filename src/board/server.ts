import { once } from 'node:events';
import { createServer, STATUS_CODES, type Server } from 'node:http';
import express, { type ErrorRequestHandler, type Express } from 'express';
import type { Logger } from 'pino';
import { UsageError, type Config } from '../config.ts';
import { createBoundedRead } from './bounded-read.ts';
import { createBullBoardRouter } from './bull-board.ts';
import { createGuard, isLoopback, securityHeaders, type GuardConfig } from './guard.ts';
import { createMetrics } from './metrics.ts';
import { renderPage } from './page.ts';
import { PAGE_CSS, PAGE_SCRIPT } from './page-assets.ts';
import { createSnapshotReader, type SnapshotNeeds } from './snapshot.ts';

export interface BoardNeeds extends SnapshotNeeds {
  readonly config: GuardConfig;
}

/**
 * The board as an Express app: the overview, Bull Board, metrics, health.
 *
 * @throws UsageError when it is to be reached from other machines without a password
 */
export function createBoard(needs: BoardNeeds): Express {
  const { config, queues, store, log } = needs;
  if (config.BOARD_PASSWORD === undefined && !isLoopback(config.BOARD_HOST)) {
    throw new UsageError(
      `The board would be open to everybody who reaches ${config.BOARD_HOST}: set BOARD_PASSWORD, ` +
        'or leave BOARD_HOST at 127.0.0.1.',
    );
  }
  const readSnapshot = createSnapshotReader(needs);
  const readMetrics = createMetrics(needs, readSnapshot);
  const pingRedis = createBoundedRead('redis', log, () => queues.connection.ping());
  const pingCassandra = createBoundedRead('cassandra', log, () => store.run('SELECT now() FROM system.local'));

  const app = express();
  app.disable('x-powered-by');
  app.use(securityHeaders());
  app.get('/healthz', (_request, response) => {
    response.json({ board: 'ok' });
  });
  app.get('/readyz', async (_request, response) => {
    const [redis, cassandra] = await Promise.all([pingRedis(), pingCassandra()]);
    const said = { redis: redis === null ? 'away' : 'ok', cassandra: cassandra === null ? 'away' : 'ok' };
    response.status(redis === null || cassandra === null ? 503 : 200).json(said);
  });

  app.use(createGuard(config));
  app.get('/', async (_request, response) => {
    response.set('Cache-Control', 'no-store').send(renderPage(await readSnapshot()));
  });
  app.get('/page.css', (_request, response) => {
    response.type('css').send(PAGE_CSS);
  });
  app.get('/page.js', (_request, response) => {
    response.type('js').send(PAGE_SCRIPT);
  });
  app.get('/metrics', async (_request, response) => {
    response.type('text/plain; version=0.0.4; charset=utf-8').send(await readMetrics());
  });
  app.use('/board', createBullBoardRouter('/board', needs));
  app.use((_request, response) => {
    response.status(404).type('text').send('Not found.\n');
  });
  app.use(plainErrors(log));
  return app;
}

/** A client learns the kind of an error and nothing more. */
function plainErrors(log: Logger): ErrorRequestHandler {
  return (error: unknown, request, response, next) => {
    const given = error instanceof Error && 'status' in error ? Number(error.status) : 500;
    const status = given >= 400 && given < 500 ? given : 500;
    if (status === 500) log.error({ err: error, path: request.path }, 'request failed');
    if (response.headersSent) next(error);
    else
      response
        .status(status)
        .type('text')
        .send(`${STATUS_CODES[status] ?? 'Error'}.\n`);
  };
}

/**
 * Starts to serve an app.
 *
 * @param address port 0 takes a free one
 * @throws UsageError when the port is taken or the address is not this machine's
 */
export async function listen(
  app: Express,
  { BOARD_HOST, BOARD_PORT }: Pick<Config, 'BOARD_HOST' | 'BOARD_PORT'>,
): Promise<{ url: string; close: () => Promise<void> }> {
  const server = createServer(app);
  server.listen(BOARD_PORT, BOARD_HOST);
  try {
    await once(server, 'listening');
  } catch (error) {
    throw new UsageError(listenProblem(error, BOARD_HOST, BOARD_PORT));
  }
  const host = BOARD_HOST.includes(':') ? `[${BOARD_HOST}]` : BOARD_HOST;
  return { url: `http://${host}:${portOf(server)}`, close: () => closeServer(server) };
}

function portOf(server: Server): number {
  const address = server.address();
  return typeof address === 'object' && address !== null ? address.port : 0;
}

/** Open pages hold their connections, so those are closed too. */
async function closeServer(server: Server): Promise<void> {
  const closed = once(server, 'close');
  server.close();
  server.closeAllConnections();
  await closed;
}

function listenProblem(error: unknown, host: string, port: number): string {
  const code = error instanceof Error && 'code' in error ? error.code : undefined;
  if (code === 'EADDRINUSE') {
    return `Port ${port} on ${host} is taken: stop what listens there, or set BOARD_PORT to another.`;
  }
  const reason = error instanceof Error ? error.message : String(error);
  return `The board cannot listen on ${host} port ${port} (${reason}): set BOARD_HOST and BOARD_PORT to others.`;
}
