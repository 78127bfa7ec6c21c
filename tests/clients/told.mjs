// What a client was seen to do, as JSON on the standard output: by name, {value} or {error}.

/** The name of an error's class, its message, and the properties that its users read. */
function ofError(error) {
  const told = { name: error.constructor.name, message: String(error.message) };
  for (const key of ["status", "statusCode", "code", "type", "param"]) {
    if (error[key] !== undefined && error[key] !== null) told[key] = error[key];
  }
  for (const key of ["request_id", "requestID"]) {
    if (error[key]) told.id = error[key];
  }
  return told;
}

/** Run every scenario; print what each gave, or how it failed. `seen` is what came before. */
export async function tell(scenarios) {
  const told = {};
  for (const [name, scenario] of Object.entries(scenarios)) {
    const seen = {};
    try {
      told[name] = { value: (await scenario(seen)) ?? null, seen };
    } catch (error) {
      told[name] = { error: ofError(error), seen };
    }
  }
  process.stdout.write(JSON.stringify(told));
}
