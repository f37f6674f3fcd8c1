import { createHash, timingSafeEqual } from 'node:crypto';
import { setImmediate as breathe } from 'node:timers/promises';
import express, { type Request, type RequestHandler, type Response } from 'express';
import { ipKeyGenerator, rateLimit } from 'express-rate-limit';
import type { Config } from '../config.ts';

const MAX_BODY_BYTES = 65_536;

/** What every request passes, in this order, before it reaches anything that shows or changes data. */
export function createGuard({ BOARD_HOST, BOARD_USERNAME, BOARD_PASSWORD: password }: Config): RequestHandler[] {
  const reader = password === undefined ? requireHost(BOARD_HOST) : requirePassword(`${BOARD_USERNAME}:${password}`);
  return [reader, requireOwnJson, express.json({ limit: MAX_BODY_BYTES })];
}

export function say(response: Response, status: number, sentence: string): void {
  response.status(status).type('text').send(`${sentence}\n`);
}

/** Without a password, a page of a foreign name that was made to resolve to this machine must not be answered. */
function requireHost(boardHost: string): RequestHandler {
  const known = new Set(['localhost', '127.0.0.1', '[::1]', boardHost]);
  return ({ headers: { host = '' } }, response, next) => {
    if (known.has(host.toLowerCase().replace(/:\d+$/, ''))) next();
    else say(response, 421, 'The board answers only under the names of this machine.');
  };
}

/**
 * HTTP Basic, compared in constant time. After ten wrong passwords from an address within a minute, the right one is
 * refused too: whoever guesses must not learn that a guess was right.
 */
function requirePassword(credentials: string): RequestHandler {
  const digest = (text: string) => createHash('sha256').update(text).digest();
  const wanted = digest(`Basic ${Buffer.from(credentials).toString('base64')}`);
  const keyGenerator = ({ ip = '' }: Request) => ipKeyGenerator(ip);
  const limit = 10;
  const message = 'Too many wrong passwords: wait a minute.\n';
  const countWrong = rateLimit({ windowMs: 60_000, limit, keyGenerator, message });
  return async (request, response, next) => {
    const { authorization } = request.headers;
    const ask = () => {
      response.set('WWW-Authenticate', 'Basic realm="vehicle-data-pipeline", charset="UTF-8"');
      say(response, 401, 'The board needs its user name and password.');
    };
    if (authorization === undefined) {
      ask();
      return;
    }
    // By then what came in one piece with it is counted, too.
    await breathe();
    const wrongSoFar = (await countWrong.getKey(keyGenerator(request)))?.totalHits ?? 0;
    if (timingSafeEqual(digest(authorization), wanted) && wrongSoFar < limit) next();
    else await countWrong(request, response, ask);
  };
}

/**
 * A page of another site can make a browser send requests here, with the password that the browser remembers, but not
 * as JSON. Browsers say where a request that changes something comes from; what says nothing is a program.
 */
const requireOwnJson: RequestHandler = (request, response, next) => {
  const { 'sec-fetch-site': site, 'content-length': length, origin, host } = request.headers;
  const isOwnOrigin = origin === undefined || origin.replace(/^https?:\/\//, '') === host;
  const isOwn = site === undefined ? isOwnOrigin : site === 'same-origin';
  if (!isOwn && request.method !== 'GET' && request.method !== 'HEAD') {
    say(response, 403, 'Requests that change something must come from the board itself.');
  } else if (Number(length) > MAX_BODY_BYTES) say(response, 413, 'So much is not taken.');
  else if (length !== '0' && request.is('application/json') === false) say(response, 415, 'Only JSON is taken.');
  else next();
};
