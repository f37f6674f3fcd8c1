import { createBullBoard } from '@bull-board/api';
import { BullMQAdapter } from '@bull-board/api/bullMQAdapter';
import type { BeforeHookResult, HookContext } from '@bull-board/api/typings/app';
import { ExpressAdapter } from '@bull-board/express';
import { Router, type Express, type RequestHandler } from 'express';
import type { Logger } from 'pino';
import { DEAD_LETTER_QUEUE } from '../queues/dead-letter.ts';
import { ingestJobSchema, versionOf } from '../queues/ingest.ts';
import type { Store } from '../storage/client.ts';
import { readVersions, settleDeadLetter } from '../storage/files.ts';
import type { SnapshotNeeds } from './snapshot.ts';

/** Bull Board leaves jobs younger than this when it removes all of a state. */
const CLEAN_GRACE_MS = 5_000;
const PAGE = 500;

/** The beginning of each fits into one line of the page, the rest shows on asking. */
const DESCRIPTIONS = {
  ingest:
    'Files to load, one job a file version; what can never be loaded moves to dead-letter. A delayed job is tried ' +
    'again by itself. Removing one that waits changes nothing for good: its file is found again.',
  deadLetter:
    'Files that could not be loaded. Mend one and press Retry: it is loaded and gone from here. Clean gives it up for ' +
    'good.',
  aggregation:
    'Runs that bring the summaries up to date; nothing to do here. Each run does all that is due, so one that failed ' +
    'needs no retry. To have one now: Schedulers, Run now.',
  slice: 'Shares of a large aggregation run, for all processors together; nothing to do here.',
};

/** Bull Board with the four queues, to be mounted at `path`. */
export function createBullBoardRouter(path: string, needs: SnapshotNeeds): Router {
  const { ingestQueue, deadLetterQueue, aggregationQueue, sliceQueue, queues, log } = needs;
  const adapter = new ExpressAdapter();
  adapter.setBasePath(path);
  createBullBoard({
    queues: [
      new BullMQAdapter(ingestQueue, { description: DESCRIPTIONS.ingest }),
      new BullMQAdapter(deadLetterQueue, { description: DESCRIPTIONS.deadLetter }),
      new BullMQAdapter(aggregationQueue, { description: DESCRIPTIONS.aggregation, allowRetries: false }),
      new BullMQAdapter(sliceQueue, { description: DESCRIPTIONS.slice }),
    ],
    serverAdapter: adapter,
    options: {
      uiConfig: {
        boardTitle: 'Vehicle data',
        miscLinks: [{ text: 'Overview', url: '/' }],
        hideDocsLink: true,
        showMetrics: true,
      },
      handlerHooks: { before: (action) => beforeAction(action, needs) },
    },
  });
  adapter.setErrorHandler((error) => {
    log.warn({ err: error }, 'bull board failed');
    return { status: 500, body: { error: 'ERRORS.INTERNAL_SERVER_ERROR' } };
  });
  const board: Express = adapter.getRouter();
  board.disable('x-powered-by');

  const router = Router();
  router.use('/api', (_request, response, next) => {
    if (queues.connection.status === 'ready') next();
    else response.status(503).json({ error: 'ERRORS.INTERNAL_SERVER_ERROR', message: 'Redis is away.' });
  });
  router.use(withoutForeignFonts, board);
  return router;
}

/** Bull Board's page asks Google for its fonts, for which a browser without the internet waits. */
const withoutForeignFonts: RequestHandler = (_request, response, next) => {
  const render = response.render.bind(response);
  response.render = (view: string, options?: object) => {
    render(view, options, (error: Error | null, html: string) => {
      if (error) next(error);
      else response.send(html.replace(/<link href="https:\/\/fonts\.[^>]*>/, ''));
    });
  };
  next();
};

/** What would do harm or would not last, and what to do instead. An action reads `<queue> <rest of its route>`. */
const REFUSALS: readonly (readonly [RegExp, string])[] = [
  [/ obliterate$/, 'A queue cannot be taken away from the processes that work on it. Pause it instead.'],
  [
    / empty$| clean\/(?!(completed|failed)$)/,
    'What waits here would only be queued again. Pause the queue, or take the files out of the folder.',
  ],
  [/ :jobId\/update-data$/, 'The data of a job names one version of a file, or one run. Add another job instead.'],
  [
    /^aggregation-slice .*clean|remove-unprocessed-children$/,
    'A run without all of its slices would leave summaries wrong. Old slices go by themselves.',
  ],
  [
    / job-schedulers\/:schedulerId(\/remove)?$/,
    'The schedule comes from the configuration: set AGGREGATION_EVERY_SECONDS or AGGREGATION_CRON.',
  ],
  [/^aggregation concurrency$/, 'Aggregation runs must not overlap, so there is one at a time.'],
  [/^aggregation (:jobId\/)?retry/, 'A run that failed needs no retry: the next one does its work.'],
  [/ add with (repeat|parent)/, 'A job that is added by hand can be neither repeated nor part of another.'],
];

async function beforeAction({ method, route, request }: HookContext, needs: SnapshotNeeds): Promise<BeforeHookResult> {
  if (method === 'get') return;
  const { queueName, jobId, queueStatus } = request.params;
  const special = optionsOf(request.body).find((name) => name === 'repeat' || name === 'parent');
  const rest = route.replace('/api/queues/:queueName/', '').replace(':queueStatus', String(queueStatus));
  const action = `${queueName} ${rest}${special === undefined ? '' : ` with ${special}`}`;
  const refusal = REFUSALS.find(([pattern]) => pattern.test(action));
  if (refusal !== undefined) return { allow: false, status: 403, message: refusal[1] };
  needs.log.info({ action, job: jobId }, 'action in bull board');
  try {
    if (action === `${DEAD_LETTER_QUEUE} :jobId/clean`) await discardOne(needs, String(jobId));
    if (action === `${DEAD_LETTER_QUEUE} clean/failed`) await discardAll(needs);
  } catch (error) {
    needs.log.warn({ err: error }, 'dead letter not discarded');
    return { allow: false, status: 500, message: 'The ledger does not answer, so nothing was removed. Try again.' };
  }
}

function optionsOf(body: { readonly options?: object } | undefined): string[] {
  return Object.keys(body?.options ?? {});
}

async function discardOne({ deadLetterQueue, store, log }: SnapshotNeeds, jobId: string): Promise<void> {
  const letter = await deadLetterQueue.getJob(jobId);
  if (letter !== undefined) await discard(store, letter.data, log);
}

/** The same letters that Bull Board then removes; one that gets old enough in between comes back from the ledger. */
async function discardAll({ deadLetterQueue, store, log }: SnapshotNeeds): Promise<void> {
  const until = Date.now() - CLEAN_GRACE_MS;
  for (let start = 0; ; start += PAGE) {
    const letters = await deadLetterQueue.getFailed(start, start + PAGE - 1);
    const old = letters.filter(({ finishedOn = 0 }) => finishedOn <= until);
    await Promise.all(old.map(({ data }) => discard(store, data, log)));
    if (letters.length === 0) return;
  }
}

/** Before a letter is removed, the ledger has to say so, or reconciliation would bring it back. */
async function discard(store: Store, data: unknown, log: Logger): Promise<void> {
  const file = ingestJobSchema.safeParse(data);
  if (!file.success) return;
  const { name } = file.data;
  const version = versionOf(file.data);
  const known = await readVersions(store, name);
  if (!known.some((one) => one.version === version && one.state === 'dead_letter')) return;
  await settleDeadLetter(store, { name, version }, 'discarded');
  log.info({ queue: DEAD_LETTER_QUEUE, file: name }, 'dead letter discarded');
}
