import { createBullBoard } from '@bull-board/api';
import { BullMQAdapter } from '@bull-board/api/bullMQAdapter';
import type { BeforeHookResult, HookContext } from '@bull-board/api/typings/app';
import { ExpressAdapter } from '@bull-board/express';
import { Router, type Express, type RequestHandler } from 'express';
import { deadLetterJobSchema, letterPages } from '../queues/dead-letter.ts';
import { versionOf } from '../queues/ingest.ts';
import { discardDeadLetter } from '../storage/files.ts';
import type { SnapshotNeeds } from './snapshot.ts';

/** What would do harm, and what to do instead. An action reads `<queue> <rest of its route>`. */
const REFUSALS: readonly (readonly [RegExp, string])[] = [
  [/ obliterate$/, 'A queue cannot be taken away from the processes that work on it. Pause it instead.'],
  [/ :jobId\/update-data$/, 'The data of a job names one version of a file, or one run. Add another job instead.'],
  [
    / job-schedulers\/:schedulerId(\/remove)?$/,
    'Set AGGREGATION_EVERY_SECONDS, AGGREGATION_CRON, VERIFY_EVERY_SECONDS.',
  ],
  [
    /^(aggregation(-slice)?|verification) :jobId\/delay$/,
    'A run that is put off would hold up all that follow. Pause the queue instead.',
  ],
  [/^aggregation concurrency$/, 'Aggregation runs must not overlap, so there is one at a time.'],
];

export function createBullBoardRouter(path: string, needs: SnapshotNeeds): Router {
  const adapter = new ExpressAdapter();
  adapter.setBasePath(path);
  const purposes = [
    [needs.ingestQueue, 'Files to load, one job a file version; what can never be loaded moves to dead-letter.'],
    [needs.deadLetterQueue, 'Files that could not be loaded. Mend one and press Retry; Clean gives it up for good.'],
    [needs.aggregationQueue, 'Runs that bring the summaries up to date. To have one now: Schedulers, Run now.'],
    [needs.sliceQueue, 'Shares of a large aggregation run, for all processors together; nothing to do here.'],
    [needs.verificationQueue, 'Samples that are compared with the files; the log of a job says what differs.'],
  ] as const;
  createBullBoard({
    queues: purposes.map(([queue, description]) => new BullMQAdapter(queue, { description })),
    serverAdapter: adapter,
    options: {
      uiConfig: { boardTitle: 'Vehicle data', miscLinks: [{ text: 'Overview', url: '/' }], hideDocsLink: true },
      handlerHooks: { before: (action) => beforeAction(action, needs) },
    },
  });
  adapter.setErrorHandler(() => ({ status: 500, body: { error: 'ERRORS.INTERNAL_SERVER_ERROR' } }));
  const board: Express = adapter.getRouter();
  board.disable('x-powered-by');
  return Router().use(withoutForeignFonts, board);
}

/** Bull Board's page asks Google for its fonts, for which a browser without the internet waits. */
const withoutForeignFonts: RequestHandler = (_request, response, next) => {
  const send = response.send.bind(response);
  const fonts = /<link href="https:\/\/fonts\.[^>]*>/;
  response.send = (body: unknown) => send(typeof body === 'string' ? body.replace(fonts, '') : body);
  next();
};

/** Bull Board does not act when this refuses, nor when it throws. */
async function beforeAction({ method, route, request }: HookContext, needs: SnapshotNeeds): Promise<BeforeHookResult> {
  if (method === 'get') return;
  const { queueName, jobId, queueStatus } = request.params;
  const rest = route.replace('/api/queues/:queueName/', '').replace(':queueStatus', String(queueStatus));
  const action = `${queueName} ${rest}`;
  const refusal = REFUSALS.find(([pattern]) => pattern.test(action));
  if (refusal !== undefined) return { allow: false, status: 403, message: refusal[1] };
  needs.log.info({ action, job: jobId }, 'action in bull board');
  if (action === 'dead-letter clean/failed') await discardAll(needs);
  if (action !== 'dead-letter :jobId/clean') return;
  const letter = await needs.deadLetterQueue.getJob(String(jobId));
  await discard(needs, letter?.data);
}

/** Younger letters are left by Bull Board until Clean is pressed again, in ms. */
const CLEAN_LEAVES_MS = 5_000;

/**
 * All of them, and where there are so many that this takes long, those that come meanwhile: they would be cleaned without a
 * word.
 */
async function discardAll(needs: SnapshotNeeds): Promise<void> {
  const done = new Set<string>();
  let began: number;
  do {
    began = performance.now();
    for await (const page of letterPages(needs.deadLetterQueue, done)) {
      await Promise.all(page.map(({ data }) => discard(needs, data)));
      for (const { id = '' } of page) done.add(id);
    }
  } while (performance.now() - began > CLEAN_LEAVES_MS / 2);
}

async function discard({ store }: SnapshotNeeds, letter: unknown): Promise<void> {
  const { data } = deadLetterJobSchema.safeParse(letter);
  if (data !== undefined) await discardDeadLetter(store, { name: data.name, version: versionOf(data) }, data.startedAt);
}
