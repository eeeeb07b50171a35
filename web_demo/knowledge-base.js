// One knowledge base of the server: its files, and what a question finds in it.

const FILES_OF_A_PAGE = 1000;

/** The server refuses a request; `message` is its reason. */
export class Refused extends Error {
  constructor(status, message) {
    super(message);
    this.refused = status === 401;
  }
}

export class KnowledgeBase {
  #folder;
  #authorization;

  /** `service` is an agent, or a knowledge base that an agent names. */
  constructor(service, authorization) {
    this.#folder = `api/open-apis/projects/default/service/${encodeURIComponent(service)}/kn`;
    this.#authorization = authorization;
  }

  /** The files, the newest first. */
  async files() {
    return (await this.#ask("GET", `files?pageNum=1&pageSize=${FILES_OF_A_PAGE}`)).list;
  }

  async remove(fileId) {
    await this.#ask("DELETE", `files/${encodeURIComponent(fileId)}`);
  }

  /** `{found, answer}`: the passages, the best first, and the fixed answer or null. */
  async search(question) {
    return this.#ask("POST", "search", { question });
  }

  /** Upload a file; `onProgress` is called with the share that is sent, 0 to 1. fetch cannot tell it. */
  upload(file, onProgress) {
    return new Promise((resolve, reject) => {
      const request = new XMLHttpRequest();
      request.open("POST", `${this.#folder}/files`);
      request.setRequestHeader("Authorization", this.#authorization);
      request.upload.addEventListener("progress", ({ loaded, total }) => onProgress(total ? loaded / total : 1));
      request.addEventListener("load", () => {
        try {
          resolve(read(request.status, request.responseText));
        } catch (error) {
          reject(error);
        }
      });
      request.addEventListener("error", () => reject(new TypeError(file.name)));
      const form = new FormData();
      form.append("file", file, file.name);
      request.send(form);
    });
  }

  async #ask(method, path, body) {
    const headers = { Authorization: this.#authorization };
    if (body) headers["Content-Type"] = "application/json";
    const response = await fetch(`${this.#folder}/${path}`, { method, headers, body: body && JSON.stringify(body) });
    return read(response.status, await response.text());
  }
}

function read(status, content) {
  let answer;
  try {
    answer = JSON.parse(content);
  } catch {
    throw new Refused(status, `${status}`);
  }
  if (status !== 200) throw new Refused(status, answer.message ?? `${status}`);
  return answer.result;
}
