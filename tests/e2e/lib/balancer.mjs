// A load balancer as small as can be: each TCP connection goes to the next node that answers.

import net from "node:net";
import { once } from "node:events";

export class RoundRobin {
  /** Connections that each node has got. */
  connections;
  #nodes;
  #next = 0;
  #sockets = new Set();

  static async start(stage, nodes) {
    const balancer = new RoundRobin(nodes);
    const server = net.createServer((socket) => balancer.#accept(socket));
    server.listen(0, "127.0.0.1");
    await once(server, "listening");
    balancer.socketUrl = `ws://127.0.0.1:${server.address().port}/socket`;
    stage.atEnd(() => {
      server.close();
      for (const socket of balancer.#sockets) socket.destroy();
    });
    return balancer;
  }

  constructor(nodes) {
    this.#nodes = nodes;
    this.connections = nodes.map(() => 0);
  }

  #accept(client, tried = 0) {
    if (tried === this.#nodes.length) return client.destroy();
    const index = this.#next++ % this.#nodes.length;
    const [host, port] = this.#nodes[index].address.split(":");
    const node = net.connect(Number(port), host);
    node.once("error", () => this.#accept(client, tried + 1));
    node.once("connect", () => {
      node.removeAllListeners("error");
      this.connections[index]++;
      for (const socket of [client, node]) {
        this.#sockets.add(socket);
        socket.on("error", () => {});
        socket.on("close", () => {
          this.#sockets.delete(socket);
          client.destroy();
          node.destroy();
        });
      }
      client.pipe(node);
      node.pipe(client);
    });
  }
}
