# An image with the gephyra program. The project's tests do not build this file.
#
# The bridge speaks to the homeserver over loopback or https and to the XMPP server over loopback only, so run it in the
# network of the host (`--network host`). /data holds the configuration, the key and the database:
#
#   docker run --rm -v gephyra:/data --entrypoint sh IMAGE -c 'umask 077; head -c 32 /dev/urandom | sha256sum | cut -c -64 > /data/xmpp-secret'
#   docker run --rm -v gephyra:/data IMAGE init --dir /data --xmpp-secret-file /data/xmpp-secret …
#   docker run --rm -v gephyra:/data --entrypoint cat IMAGE /data/appservice.yaml    # the homeserver's copy
#   docker run --network host -v gephyra:/data IMAGE
#
# The bridge takes up to 25 seconds to stop; `docker stop` alone kills after 10, which loses nothing but leaves more to do
# again: `docker stop --time 30`.
# `backup` and `restore` of a PostgreSQL database need its client programs, which are not in this image.

FROM rust:1.95-bookworm AS build
WORKDIR /source
COPY . .
RUN cargo build --release --locked --package bridge

FROM debian:bookworm-slim
RUN apt-get update && apt-get install --yes --no-install-recommends ca-certificates && rm -rf /var/lib/apt/lists/* \
    && useradd --system --home-dir /data gephyra && install -d -o gephyra -m 0700 /data
COPY --from=build /source/target/release/gephyra /usr/local/bin/gephyra
USER gephyra
VOLUME /data
ENTRYPOINT ["gephyra"]
CMD ["run", "--config", "/data/config.toml"]
