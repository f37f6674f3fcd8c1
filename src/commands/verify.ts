import { UsageError } from '../config.ts';
import { countFiles } from '../data-folder.ts';
import { verify } from '../processors/verification.ts';
import type { VerificationReport } from '../queues/verification.ts';
import type { Runtime } from '../runtime.ts';
import { print, printable, startBar } from '../terminal.ts';
import { openAll } from './connect.ts';

/** Compares what is stored with the files, says what differs and, with `repair`, mends it. Fails when something is wrong. */
export async function verifyFiles(
  runtime: Runtime,
  { json, repair, sample }: { json: boolean; repair: boolean; sample: number },
): Promise<void> {
  const { config, shutdown } = runtime;
  const opened = await openAll(runtime);
  const bar = startBar(await countFiles(config.DATA_DIR), 'files, {differences} differences', { differences: 0 });
  const report = await verify(opened, {
    share: sample,
    repair,
    goesOn: () => !shutdown.signal.aborted,
    onFile: ({ differences }) => bar.increment({ differences }),
  }).finally(() => bar.stop());

  print(json, report, textOf(report));
  if (shutdown.signal.aborted) throw new UsageError('Stopped before everything was compared.');
  const left = report.differences - report.mended;
  if (left > 0)
    throw new UsageError(`${left} difference(s) are left${repair ? '' : ': --repair mends what can be mended'}.`);
}

function textOf({ examples, ...report }: VerificationReport): string {
  const { waiting, deadLetters, discarded, gone, notDue, differences, mended } = report;
  const lines = [
    `${report.files} loaded files with ${report.records} records and ${report.days} vehicle days compared.`,
    `Of the other files, ${waiting} wait to be loaded, ${deadLetters} are dead letters, ${discarded} are discarded.`,
    ...(gone > 0 ? [`${gone} loaded files are neither in the folder nor in the archive any more.`] : []),
    ...(notDue > 0 ? [`${notDue} vehicle days are about to be aggregated, and were not judged.`] : []),
    ...examples.map(({ what, problem, mended: isMended }) =>
      printable(`${isMended ? 'mended' : 'wrong '}  ${what}: ${problem}`),
    ),
    ...(differences > examples.length ? [`… and ${differences - examples.length} more.`] : []),
    `${differences} differences, ${mended} mended.`,
  ];
  return lines.join('\n');
}
