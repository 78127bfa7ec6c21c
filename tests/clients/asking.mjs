// Asks an endpoint that streams as axios and Xano's SDK do by themselves: both send `application/json, text/plain, */*`.
import axios from "axios";
import { XanoNodeClient } from "@xano/js-sdk";
import { tell } from "./told.mjs";

const [address] = process.argv.slice(2);
await tell({
  axios: async () => {
    const response = await axios.get(`${address}/few`);
    return { type: response.headers["content-type"], body: response.data };
  },
  "axios, JSON": async () => {
    const response = await axios.get(`${address}/few`, { headers: { Accept: "application/json" } });
    return { type: response.headers["content-type"], chunks: response.data.chunks };
  },
  xano: async () => {
    const client = new XanoNodeClient({ apiGroupBaseUrl: address });
    const response = await client.get("/few");
    return { body: response.getBody() };
  },
});
