import { errors } from 'cassandra-driver';
import { expect, it } from 'vitest';
import { messageOf } from '../../src/runtime.ts';

it('what the driver of Cassandra says, with an error and its stack trace in its message, is one line', () => {
  const closed = new errors.OperationTimedOutError('Socket was closed');
  const error = new errors.NoHostAvailableError({ '127.0.0.1:9042': closed });
  expect(error.message).toMatch(/\n {4}at /);
  expect(messageOf(error)).toMatch(/^All host\(s\) tried for query failed\..* 127\.0\.0\.1:9042: .*Socket was closed$/);
  expect(messageOf(new Error('two bad values:\n  ONE: not a number'))).toBe('two bad values:\n  ONE: not a number');
});
