/**
 * Waiting between HTTP attempts of the client. This is about reaching the server and has nothing
 * to do with the retries of jobs, which the server decides on its own.
 */

export interface BackoffOptions {
  /** First wait in milliseconds. */
  baseMs: number;
  /** No wait is longer than this. */
  maxMs: number;
  /** Requests in total, the first one included. */
  tries: number;
}

export const DEFAULT_BACKOFF: BackoffOptions = { baseMs: 250, maxMs: 8_000, tries: 4 };

/** Equal jitter: half of the exponential step is fixed, the other half is drawn. */
export function backoffDelay(attempt: number, options: BackoffOptions, random: () => number = Math.random): number {
  const step = Math.min(options.maxMs, options.baseMs * 2 ** attempt);
  return step / 2 + (random() * step) / 2;
}

/** Read `Retry-After`, which may hold seconds or an HTTP date. Undefined when absent or broken. */
export function parseRetryAfter(header: string | null, now: number = Date.now()): number | undefined {
  if (header === null) return undefined;
  if (/^\d+$/.test(header)) return Number(header) * 1000;
  const moment = Date.parse(header);
  return Number.isNaN(moment) ? undefined : Math.max(0, moment - now);
}

/** Sleep that ends early, with an AbortError, when the caller gives up. */
export function sleep(ms: number, signal?: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(resolve, ms);
    signal?.addEventListener("abort", () => {
      clearTimeout(timer);
      reject(new DOMException("aborted", "AbortError"));
    });
  });
}
