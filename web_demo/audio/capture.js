// The microphone: 16 kHz s16le in frames of 40 ms, echo cancelled by the browser.

import { keepAwake } from "./awake.js";
import { MICROPHONE_RATE_HZ } from "../protocol.js";
import { Blocks, rootMeanSquare, toPcm16 } from "./pcm.js";
import { Resampler } from "./resampler.js";

const FRAME_SAMPLES = (MICROPHONE_RATE_HZ * 40) / 1000;

export class Microphone {
  #stream;
  #context;
  #frames = new Blocks(FRAME_SAMPLES);

  /**
   * Ask for the microphone and start it. `onFrame(bytes)` gets audio, `onLevel(rms)` its loudness each 40 ms,
   * `onEnded()` is told when the device is taken away. Raises what getUserMedia raises: see microphoneFault.
   */
  static async open({ deviceId = "", onFrame, onLevel, onEnded }) {
    const microphone = new Microphone();
    try {
      await microphone.#start(deviceId, { onFrame, onLevel, onEnded });
    } catch (error) {
      await microphone.close();
      throw error;
    }
    return microphone;
  }

  async #start(deviceId, { onFrame, onLevel, onEnded }) {
    if (!navigator.mediaDevices) throw new DOMException("", "SecurityError");
    const audio = { channelCount: 1, echoCancellation: true, noiseSuppression: true, autoGainControl: true };
    if (deviceId) audio.deviceId = { exact: deviceId };
    this.#stream = await navigator.mediaDevices.getUserMedia({ audio });
    this.#stream.getAudioTracks()[0].onended = onEnded;
    // At the device's own rate: a context of another rate cannot take a microphone in every browser.
    this.#context = new AudioContext({ latencyHint: "interactive" });
    keepAwake(this.#context);
    await this.#context.audioWorklet.addModule(new URL("capture-worklet.js", import.meta.url));
    const resampler = new Resampler(this.#context.sampleRate, MICROPHONE_RATE_HZ);
    const worklet = new AudioWorkletNode(this.#context, "capture", { channelCount: 1, channelCountMode: "explicit" });
    worklet.port.onmessage = ({ data }) => {
      for (const frame of this.#frames.push(resampler.process(data))) {
        onLevel(rootMeanSquare(frame));
        onFrame(toPcm16(frame));
      }
    };
    // The worklet's output is silence; connected, so that it is pulled.
    this.#context.createMediaStreamSource(this.#stream).connect(worklet).connect(this.#context.destination);
  }

  /** The end of what was said that does not fill a frame. */
  flush() {
    return toPcm16(this.#frames.flush());
  }

  async close() {
    for (const track of this.#stream?.getTracks() ?? []) track.stop();
    if (this.#context?.state !== "closed") await this.#context?.close();
  }
}

/** The key of a text that says why there is no microphone. */
export function microphoneFault(error) {
  const known = {
    NotAllowedError: "microphone.refused",
    NotFoundError: "microphone.absent",
    OverconstrainedError: "microphone.absent",
    NotReadableError: "microphone.busy",
    SecurityError: "microphone.insecure",
  };
  return known[error.name] ?? "microphone.failed";
}

/** The microphones there are. Their names are empty until one has been allowed. */
export async function listMicrophones() {
  let devices = [];
  try {
    devices = (await navigator.mediaDevices?.enumerateDevices()) ?? [];
  } catch {
    // A browser that tells none: the system's own is still there to choose.
  }
  return devices.filter(({ kind, deviceId }) => kind === "audioinput" && deviceId);
}
