import { BackoffOptions, DEFAULT_BACKOFF, backoffDelay, parseRetryAfter, sleep } from "./backoff";
import { ErrorBody, JobState, JobSummary, Page, QuernApiError, SubmitOptions } from "./types";

const FINAL: ReadonlySet<JobState> = new Set(["done", "dead", "cancelled", "quarantined"]);

export interface ClientOptions {
  baseUrl: string;
  token: string;
  backoff?: BackoffOptions;
  fetch?: typeof fetch;
}

/** Talks to one Quern cluster. Holds no state, so one instance can be shared freely. */
export class QuernClient {
  private readonly backoff: BackoffOptions;
  private readonly fetch: typeof fetch;

  constructor(private readonly options: ClientOptions) {
    this.backoff = options.backoff ?? DEFAULT_BACKOFF;
    this.fetch = options.fetch ?? globalThis.fetch.bind(globalThis);
  }

  /**
   * Submit a job and return its id.
   *
   * Without a dedupe key a repeated request could create the job twice (the first answer may be
   * lost on the way), so the client only repeats submissions that carry one. A 409 for a
   * key this very call sent is treated as success and yields the id of the existing job.
   */
  async submitJob(queue: string, options: SubmitOptions): Promise<string> {
    const body = {
      kind: options.kind,
      payload: options.payload,
      priority: options.priority,
      run_at: options.runAt?.toISOString(),
      dedupe_key: options.dedupeKey,
    };
    const repeatable = options.dedupeKey !== undefined;
    try {
      const reply = await this.request<{ id: string }>("POST", `/v2/queues/${queue}/jobs`, body, repeatable);
      return reply.id;
    } catch (error) {
      if (error instanceof QuernApiError && error.code === "QRN-2009" && repeatable) {
        return error.message.match(/job (\S+) already/)![1];
      }
      throw error;
    }
  }

  /** Poll until the job is final. Starts at 500 ms and stretches to 10 s between polls. */
  async waitForJob(id: string, signal?: AbortSignal): Promise<JobSummary> {
    let pause = 500;
    for (;;) {
      const job = await this.request<JobSummary>("GET", `/v2/jobs/${id}`, undefined, true);
      if (FINAL.has(job.state)) return job;
      await sleep(pause, signal);
      pause = Math.min(10_000, pause * 1.5);
    }
  }

  /** Walk through all jobs of a queue, page by page. */
  async *listJobs(queue: string, state: JobState): AsyncGenerator<JobSummary> {
    let cursor: string | null = null;
    do {
      const query = new URLSearchParams({ state, ...(cursor ? { cursor } : {}) });
      const page: Page<JobSummary> = await this.request("GET", `/v2/queues/${queue}/jobs?${query}`, undefined, true);
      yield* page.items;
      cursor = page.nextCursor;
    } while (cursor !== null);
  }

  private async request<T>(method: string, path: string, body: unknown, repeatable: boolean): Promise<T> {
    for (let attempt = 0; ; attempt++) {
      const reply = await this.fetch(this.options.baseUrl + path, {
        method,
        headers: { authorization: `Bearer ${this.options.token}`, "content-type": "application/json" },
        body: body === undefined ? undefined : JSON.stringify(body),
      });
      if (reply.ok) return (await reply.json()) as T;
      const { error } = (await reply.json()) as ErrorBody;
      const failure = new QuernApiError(reply.status, error.code, error.message, error.request_id);
      if (!repeatable || !failure.isTransient || attempt + 1 >= this.backoff.tries) throw failure;
      await sleep(parseRetryAfter(reply.headers.get("retry-after")) ?? backoffDelay(attempt, this.backoff));
    }
  }
}
