/** Shapes of the v2 HTTP API as the browser and Node clients see them. */

export type JobState = "waiting" | "leased" | "done" | "dead" | "cancelled" | "quarantined";

export interface SubmitOptions {
  kind: string;
  payload: Record<string, unknown>;
  /** 0 is most urgent, 9 least. The server assumes 5. */
  priority?: number;
  /** Not before this moment. Sent as ISO 8601 with an offset; a Date is converted to UTC. */
  runAt?: Date;
  /** A second job with the same key within 24 hours is refused by the server. */
  dedupeKey?: string;
}

export interface JobSummary {
  id: string;
  kind: string;
  state: JobState;
  attempts: number;
  lastError: string | null;
}

export interface Page<T> {
  items: T[];
  nextCursor: string | null;
}

export interface ErrorBody {
  error: { code: string; message: string; request_id: string };
}

/** Thrown for every answer outside 2xx. Match on `code`, never on the wording. */
export class QuernApiError extends Error {
  constructor(
    readonly status: number,
    readonly code: string,
    message: string,
    readonly requestId: string,
  ) {
    super(`${code}: ${message}`);
    this.name = "QuernApiError";
  }

  /** True when sending the identical request later may work. */
  get isTransient(): boolean {
    return this.status === 429 || this.status === 503;
  }
}
