# What building, testing and releasing takes; `tests/run` finds everything here that it installs elsewhere.
{
  lib,
  pkgs,
  mkShell,
}:
mkShell {
  packages =
    (with pkgs; [
      cargo
      cargo-audit
      cargo-deny
      cargo-fuzz
      cargo-llvm-cov
      cargo-nextest
      cargo-watch
      clippy
      rust-analyzer
      rustc
      rustfmt
      git
      pkg-config
      openssl
      nodejs
      python3
      postgresql
      redis
      nginx
      haproxy
      prometheus
      kubernetes-helm
      kubeconform
      skopeo
      strace
      util-linux
      procps
      jq
      nixfmt
      deadnix
      shellcheck
    ])
    # Not on every system, or not under this name in every release.
    ++ map (name: pkgs.${name}) (
      lib.filter (name: pkgs ? ${name}) [
        "chromium"
        "runc"
        "umoci"
      ]
    );
}
