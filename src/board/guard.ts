import { createHash, timingSafeEqual } from 'node:crypto';
import { isIPv4 } from 'node:net';
import express, { type Request, type RequestHandler } from 'express';
import { ipKeyGenerator, rateLimit } from 'express-rate-limit';
import helmet from 'helmet';
import type { Config } from '../config.ts';

/** Wrong passwords from one address before it has to wait for the window to end. */
const WRONG_PASSWORDS = 10;
const WINDOW_MS = 60_000;
/** The largest body is a job that somebody adds by hand. */
const BODY_LIMIT = '64kb';

export type GuardConfig = Pick<Config, 'BOARD_HOST' | 'BOARD_USERNAME' | 'BOARD_PASSWORD'>;

/** Whether an address to listen on is reached from this machine only. */
export function isLoopback(host: string): boolean {
  return host === 'localhost' || host === '::1' || (isIPv4(host) && host.startsWith('127.'));
}

/**
 * Headers that keep pages from being framed, sniffed or fed with foreign scripts. Styles may be inline, because Bull
 * Board's are; nothing is upgraded to HTTPS, because the board speaks HTTP and a proxy before it may add TLS.
 */
export function securityHeaders(): RequestHandler {
  return helmet({
    contentSecurityPolicy: {
      useDefaults: false,
      directives: {
        defaultSrc: ["'none'"],
        scriptSrc: ["'self'"],
        styleSrc: ["'self'", "'unsafe-inline'"],
        imgSrc: ["'self'", 'data:'],
        fontSrc: ["'self'"],
        connectSrc: ["'self'"],
        baseUri: ["'self'"],
        formAction: ["'none'"],
        frameAncestors: ["'none'"],
      },
    },
    frameguard: { action: 'deny' },
    strictTransportSecurity: false,
    // With no-referrer, some browsers send `Origin: null` for the board's own requests.
    referrerPolicy: { policy: 'same-origin' },
  });
}

/** What every request passes, in this order, before it reaches anything that shows or changes data. */
export function createGuard(config: GuardConfig): RequestHandler[] {
  const { BOARD_HOST, BOARD_USERNAME, BOARD_PASSWORD } = config;
  return [
    BOARD_PASSWORD === undefined ? requireKnownHost(BOARD_HOST) : requirePassword(BOARD_USERNAME, BOARD_PASSWORD),
    requireSameOrigin,
    requireJson,
    express.json({ limit: BODY_LIMIT }),
  ];
}

/** Without a password, a page of a foreign name that was made to resolve to this machine must not be answered. */
function requireKnownHost(boardHost: string): RequestHandler {
  const known = new Set(['localhost', '127.0.0.1', '[::1]', boardHost.includes(':') ? `[${boardHost}]` : boardHost]);
  return (request, response, next) => {
    const url = parseUrl(`http://${request.headers.host ?? ''}`);
    if (url !== undefined && known.has(url.hostname)) next();
    else response.status(421).type('text').send('The board answers only under the names of this machine.\n');
  };
}

function digest(text: string): Buffer {
  return createHash('sha256').update(text).digest();
}

/** Takes the same time whatever is wrong, so that neither the name nor the password can be guessed piece by piece. */
function createPasswordCheck(username: string, password: string): (header: string) => boolean {
  const wanted = { username: digest(username), password: digest(password) };
  return (header) => {
    const [scheme = '', encoded = ''] = header.split(' ');
    const given = Buffer.from(encoded, 'base64').toString();
    const colon = given.indexOf(':');
    const sameName = timingSafeEqual(digest(given.slice(0, Math.max(0, colon))), wanted.username);
    const samePassword = timingSafeEqual(digest(given.slice(colon + 1)), wanted.password);
    return scheme.toLowerCase() === 'basic' && colon >= 0 && sameName && samePassword;
  };
}

/**
 * HTTP Basic. An address with too many wrong passwords is refused for up to a minute, the right one included: whoever
 * guesses must not learn that a guess was right.
 */
function requirePassword(username: string, password: string): RequestHandler {
  const isRight = createPasswordCheck(username, password);
  const addressOf = (request: Request) => ipKeyGenerator(request.ip ?? '');
  const countWrong = rateLimit({
    windowMs: WINDOW_MS,
    limit: WRONG_PASSWORDS,
    keyGenerator: addressOf,
    standardHeaders: false,
    legacyHeaders: false,
    message: 'Too many wrong passwords: wait a minute.\n',
  });
  return async (request, response, next) => {
    const header = request.headers.authorization;
    const refuse = () => {
      response.set('WWW-Authenticate', 'Basic realm="vehicle-data-pipeline", charset="UTF-8"');
      response.status(401).type('text').send('The board needs its user name and password.\n');
    };
    // A browser's first request never has a password.
    if (header === undefined) {
      refuse();
      return;
    }
    const wrongSoFar = (await countWrong.getKey(addressOf(request)))?.totalHits ?? 0;
    if (wrongSoFar < WRONG_PASSWORDS && isRight(header)) next();
    else await countWrong(request, response, refuse);
  };
}

const READING = new Set(['GET', 'HEAD', 'OPTIONS']);

/**
 * A page of another site can make a browser send requests here, with the password that the browser remembers. Browsers
 * say where a request that changes something comes from; what says nothing is a program, which needs no protection.
 */
const requireSameOrigin: RequestHandler = (request, response, next) => {
  if (READING.has(request.method) || isSameOrigin(request)) next();
  else response.status(403).type('text').send('Requests that change something must come from the board itself.\n');
};

function isSameOrigin({ headers }: Request): boolean {
  const site = headers['sec-fetch-site'];
  if (site !== undefined) return site === 'same-origin';
  if (headers.origin === undefined) return true;
  return parseUrl(headers.origin)?.host === headers.host;
}

function parseUrl(text: string): URL | undefined {
  return URL.canParse(text) ? new URL(text) : undefined;
}

/** Forms of foreign pages can send text, form fields and files without asking, but not JSON. */
const requireJson: RequestHandler = (request, response, next) => {
  const { 'content-length': length = '0', 'transfer-encoding': encoding } = request.headers;
  const hasBody = encoding !== undefined || Number(length) > 0;
  if (!hasBody || request.is('application/json') !== false) next();
  else response.status(415).type('text').send('Only JSON is taken.\n');
};
