// A request body to begin with, from its JSON Schema: what is required, with values that work on any server. Pure.

/** By the name of a field, what is more telling than its type. */
const VALUES = {
  model: "default",
  easyllm_id: "default",
  messages: [{ role: "user", content: "What can you do?" }],
  input: "Good morning. This voice is synthesised.",
  text: ["Good morning. This voice is synthesised."],
  audio_url: "https://example.com/recording.wav",
};
const DEEPEST = 6;

/** An example of a JSON body: what is required, and an address where that takes the place of a file. */
export function exampleBody(schema, resolve) {
  const body = exampleOf(schema, resolve);
  const { properties = {} } = schema.$ref ? resolve(schema.$ref) : schema;
  return "audio_url" in properties ? { ...body, audio_url: VALUES.audio_url } : body;
}

/** An example value of `schema`; `resolve(reference)` finds what a `$ref` names. Files are left out. */
export function exampleOf(schema, resolve, depth = 0) {
  if (!schema || depth > DEEPEST) return null;
  if (schema.$ref) return exampleOf(resolve(schema.$ref), resolve, depth + 1);
  if ("const" in schema) return schema.const;
  if (schema.default !== undefined && schema.default !== null && schema.default !== "") return schema.default;
  const options = schema.anyOf ?? schema.oneOf;
  if (options) return exampleOf(options[0], resolve, depth + 1);
  if (schema.enum) return schema.enum[0];
  if (schema.properties) return exampleObject(schema, resolve, depth);
  switch (schema.type) {
    case "array":
      return schema.minItems ? [exampleOf(schema.items, resolve, depth + 1)] : [];
    case "integer":
    case "number":
      return schema.minimum ?? 1;
    case "boolean":
      return false;
    case "object":
      return {};
    default:
      return "";
  }
}

function exampleObject({ properties, required = [] }, resolve, depth) {
  const entries = required
    .filter((name) => properties[name]?.format !== "binary")
    .map((name) => [name, VALUES[name] ?? exampleOf(properties[name], resolve, depth + 1)]);
  return Object.fromEntries(entries);
}

/** The fields of a form: [{name, isFile, value}], files last; those that are objects as JSON text. */
export function formFields(schema, resolve) {
  const { properties = {}, required = [] } = schema.$ref ? resolve(schema.$ref) : schema;
  const fields = Object.entries(properties)
    .filter(([name]) => required.includes(name) || name === "response_format")
    .map(([name, about]) => {
      if (about.format === "binary") return { name, isFile: true, value: "recording.wav" };
      const value = VALUES[name] ?? exampleOf(about, resolve);
      return { name, isFile: false, value: typeof value === "object" ? JSON.stringify(value) : `${value}` };
    });
  return fields.sort((one, other) => one.isFile - other.isFile);
}
