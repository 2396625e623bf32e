import type { Dashboard } from "@grafana/schema";

/** A type as JSON has it: a text takes the place of an enum of texts. */
type Json<T> = T extends string ? `${T}` : T extends object ? { [K in keyof T]: Json<T[K]> } : T;

export type Checked = Json<Partial<Dashboard>>;
