import { once } from 'node:events';
import { createServer, STATUS_CODES } from 'node:http';
import express, { type ErrorRequestHandler, type Express } from 'express';
import helmet from 'helmet';
import { requireBoardPassword, UsageError, type Config } from '../config.ts';
import { createBullBoardRouter } from './bull-board.ts';
import { createGuard, say } from './guard.ts';
import { createMetrics } from './metrics.ts';
import { renderPage } from './page.ts';
import { boundedRead, createSnapshotReader, type SnapshotNeeds } from './snapshot.ts';

/** Who sends a request drop by drop holds its connection no longer than this, in ms. */
const TIME_LIMITS = { headersTimeout: 5_000, requestTimeout: 10_000, connectionsCheckingInterval: 1_000 };

/** The board as an Express app. @throws UsageError when other machines could reach it without a password */
export function createBoard(needs: SnapshotNeeds & { readonly config: Config }): Express {
  const { config, queues, store, log } = needs;
  requireBoardPassword(config);
  const readSnapshot = createSnapshotReader(needs);
  const readMetrics = createMetrics(needs, readSnapshot);
  const pingRedis = boundedRead(log, () => queues.connection.ping());
  const pingCassandra = boundedRead(log, () => store.run('SELECT now() FROM system.local'));

  const app = express();
  // They say whose requests they pass on; else whoever guesses there would shut out all others.
  app.set('trust proxy', config.BOARD_PROXIES);
  const contentSecurityPolicy = { directives: { frameAncestors: ["'none'"], upgradeInsecureRequests: null } };
  // With no-referrer, some browsers send `Origin: null` for the board's own requests.
  const referrerPolicy = { policy: 'same-origin' } as const;
  app.use(helmet({ contentSecurityPolicy, referrerPolicy, strictTransportSecurity: false }));
  app.get('/healthz', (_request, response) => void response.json({ board: 'ok' }));
  app.get('/readyz', async (_request, response) => {
    const answers = await Promise.all([pingRedis(), pingCassandra()]);
    const [redis, cassandra] = answers.map((answer) => (answer === null ? 'away' : 'ok'));
    response.status(answers.includes(null) ? 503 : 200).json({ redis, cassandra });
  });
  app.use(createGuard(config));
  app.get('/', async (_request, response) => {
    response.set('Cache-Control', 'no-store').send(renderPage(await readSnapshot()));
  });
  app.get('/metrics', async (_request, response) => {
    response.type('text/plain; version=0.0.4; charset=utf-8').send(await readMetrics());
  });
  app.use('/board', createBullBoardRouter('/board', needs));
  app.use((_request, response) => say(response, 404, 'There is nothing here.'));
  // A client learns the kind of an error and nothing more.
  const onError: ErrorRequestHandler = (error, { path }, response, _next) => {
    const { status = 500 }: { readonly status?: number } = error;
    if (status === 500) log.error({ err: error, path }, 'request failed');
    say(response, status, `${STATUS_CODES[status] ?? 'Error'}.`);
  };
  app.use(onError);
  return app;
}

/** Serves an app; port 0 is a free one. @throws UsageError when the port is taken or the address is not here */
export async function listen(app: Express, { BOARD_HOST, BOARD_PORT }: Pick<Config, 'BOARD_HOST' | 'BOARD_PORT'>) {
  const server = createServer(TIME_LIMITS, app).listen(BOARD_PORT, BOARD_HOST);
  await once(server, 'listening').catch((error: unknown) => {
    const reason = String(error).replace(/^.* E[A-Z]+: /, '');
    throw new UsageError(`The board cannot listen there (${reason}): set BOARD_PORT or BOARD_HOST to another.`);
  });
  const address = server.address();
  const port = typeof address === 'object' && address !== null ? address.port : BOARD_PORT;
  const close = () => {
    server.close();
    server.closeAllConnections(); // open pages hold theirs
    return once(server, 'close');
  };
  return { url: `http://${BOARD_HOST.includes(':') ? `[${BOARD_HOST}]` : BOARD_HOST}:${port}`, close };
}
