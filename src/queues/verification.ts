/** The queue of scheduled verifications of a sample: one at a time in the whole fleet. */
export const VERIFICATION_QUEUE = 'verification';

/**
 * What a verification compared and found, to begin with. Files that wait are not loaded yet; gone ones are loaded and
 * neither in the folder nor in the archive; days that are not due have changed since the last aggregation. The examples are
 * differences, and whether they are mended by now.
 */
export const emptyReport = () => ({
  ...{ files: 0, records: 0, days: 0, waiting: 0, deadLetters: 0, discarded: 0, gone: 0, notDue: 0 },
  ...{ differences: 0, mended: 0, examples: [] as { what: string; problem: string; mended: boolean }[] },
});
export type VerificationReport = ReturnType<typeof emptyReport>;

export const VERIFICATION_JOBS = { stackTraceLimit: 0, removeOnComplete: { count: 100 }, removeOnFail: { count: 100 } };
