import { pino, type Logger } from 'pino';
import pretty from 'pino-pretty';
import type { Config } from './config.ts';

/** What the drivers attach to their errors may be a command with its arguments, a login for one, also deep inside. */
function withoutSecrets(error: unknown) {
  if (!(error instanceof Error)) return String(error);
  const { type, message, stack, code } = pino.stdSerializers.err(error);
  return { type, message, stack, ...(code !== undefined && { code: String(code) }) };
}

/**
 * The process's log: JSON lines, or text for a person at a terminal. It goes to standard error, so that a command's
 * data on standard output stays clean. Secrets that may ride along in an error or a configuration are left out.
 */
export function createLog(config: Pick<Config, 'LOG_LEVEL' | 'LOG_FORMAT'>, role: string): Logger {
  const format = config.LOG_FORMAT ?? (process.stderr.isTTY ? 'pretty' : 'json');
  const forPeople = { ignore: 'pid,hostname,role', messageFormat: '{role}: {msg}', translateTime: 'HH:MM:ss' };
  const destination =
    format === 'pretty'
      ? pretty({ destination: 2, sync: true, colorize: process.stderr.isTTY, ...forPeople })
      : pino.destination({ dest: 2, sync: true });
  const base = { role, pid: process.pid };
  const redact = { paths: ['*.password', '*.url'], censor: '[hidden]' };
  return pino({ level: config.LOG_LEVEL, base, redact, serializers: { err: withoutSecrets } }, destination);
}
