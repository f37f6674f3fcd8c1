import { createBullBoard } from '@bull-board/api';
import { BullMQAdapter } from '@bull-board/api/bullMQAdapter';
import type { BeforeHookResult, HookContext } from '@bull-board/api/typings/app';
import { ExpressAdapter } from '@bull-board/express';
import { Router, type Express, type RequestHandler } from 'express';
import type { Logger } from 'pino';
import { AGGREGATION_QUEUE, AGGREGATION_SLICE_QUEUE } from '../queues/aggregation.ts';
import { DEAD_LETTER_QUEUE, type DeadLetterQueue } from '../queues/dead-letter.ts';
import { ingestJobSchema, versionOf } from '../queues/ingest.ts';
import type { Store } from '../storage/client.ts';
import { readVersions, settleDeadLetter } from '../storage/files.ts';
import type { SnapshotNeeds } from './snapshot.ts';

/** Bull Board leaves jobs younger than this when it removes all of a state. */
const CLEAN_GRACE_MS = 5_000;
const PAGE = 500;

const DESCRIPTIONS = {
  ingest:
    'Files to load, one job a file version. A job waits here seconds; one that is delayed failed and is tried again. ' +
    'What can never be loaded moves to dead-letter. Removing a job changes nothing for good: its file is found again.',
  deadLetter:
    'Files that could not be loaded; the reason is under Failed. Mend the file and press Retry: it is loaded and gone ' +
    'from here. Remove (Clean) gives the file up for good.',
  aggregation:
    'Runs that bring the hourly and daily summaries up to date, started by a schedule. Each does all that is due, so a ' +
    'failed one needs no retry. To run one now: Job schedulers, Run now.',
  slice: 'Shares of a large aggregation run, worked off by all processors together. Nothing to do here.',
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
        boardTitle: 'Vehicle data pipeline',
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

async function beforeAction({ method, route, request }: HookContext, needs: SnapshotNeeds): Promise<BeforeHookResult> {
  if (method === 'get') return;
  const { queueName, jobId, queueStatus } = request.params;
  const action = { name: route.replace('/api/queues/', ''), queue: queueName, status: queueStatus, body: request.body };
  const refusal = reasonToRefuse(action);
  if (refusal !== undefined) return { allow: false, status: 403, message: refusal };
  needs.log.info({ queue: queueName, job: jobId, action: action.name }, 'action in bull board');
  if (queueName !== DEAD_LETTER_QUEUE) return;
  try {
    if (action.name === ':queueName/:jobId/clean') await discardOne(needs, String(jobId));
    if (action.name === ':queueName/clean/:queueStatus') await discardAll(needs);
  } catch (error) {
    needs.log.warn({ err: error }, 'dead letter not discarded');
    return { allow: false, status: 500, message: 'The ledger does not answer, so nothing was removed. Try again.' };
  }
}

/** Why an action would do harm, or would not last; undefined where it is fine. */
function reasonToRefuse(action: { name: string; queue: unknown; status: unknown; body: unknown }): string | undefined {
  switch (action.name) {
    case ':queueName/obliterate':
      return 'A queue cannot be taken away from the processes that work on it. Pause it instead.';
    case ':queueName/empty':
      return 'What waits here would only be queued again. Pause the queue, or take the files out of the folder.';
    case ':queueName/:jobId/update-data':
      return 'The data of a job names one version of one file, or one run, and cannot be changed. Add a job instead.';
    case ':queueName/:jobId/remove-unprocessed-children':
      return 'A run without all of its slices would leave summaries wrong. Remove the run: the next one does its work.';
    case ':queueName/job-schedulers/:schedulerId':
    case ':queueName/job-schedulers/:schedulerId/remove':
      return 'The schedule comes from the configuration: set AGGREGATION_EVERY_SECONDS or AGGREGATION_CRON.';
    case ':queueName/clean/:queueStatus':
      if (action.status !== 'completed' && action.status !== 'failed') {
        return 'What waits or is under way would only be queued again. Pause the queue instead.';
      }
      break;
    case ':queueName/concurrency':
      return action.queue === AGGREGATION_QUEUE ? 'Aggregation runs must not overlap.' : undefined;
    case ':queueName/:jobId/retry':
    case ':queueName/retry/:queueStatus':
      return action.queue === AGGREGATION_QUEUE
        ? 'A run that failed needs no retry: the next one does its work. To have it now, run the schedule.'
        : undefined;
    case ':queueName/add':
      return refusedOptions(action.body);
  }
  const removes = action.name.includes('/clean');
  return removes && action.queue === AGGREGATION_SLICE_QUEUE
    ? 'A run without all of its slices would leave summaries wrong. Old slices go by themselves.'
    : undefined;
}

function refusedOptions(body: unknown): string | undefined {
  const options = typeof body === 'object' && body !== null && 'options' in body ? body.options : undefined;
  if (typeof options !== 'object' || options === null || !('repeat' in options || 'parent' in options)) return undefined;
  return 'A job that is added by hand can be neither repeated nor part of another.';
}

async function discardOne({ deadLetterQueue, store, log }: DiscardNeeds, jobId: string): Promise<void> {
  const letter = await deadLetterQueue.getJob(jobId);
  if (letter !== undefined) await discard(store, letter.data, log);
}

/** The same letters that Bull Board then removes; one that gets old enough in between comes back from the ledger. */
async function discardAll({ deadLetterQueue, store, log }: DiscardNeeds): Promise<void> {
  const until = Date.now() - CLEAN_GRACE_MS;
  for (let start = 0; ; start += PAGE) {
    const letters = await deadLetterQueue.getFailed(start, start + PAGE - 1);
    const old = letters.filter(({ finishedOn = 0 }) => finishedOn <= until);
    await Promise.all(old.map(({ data }) => discard(store, data, log)));
    if (letters.length === 0) return;
  }
}

interface DiscardNeeds {
  readonly deadLetterQueue: DeadLetterQueue;
  readonly store: Store;
  readonly log: Logger;
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
