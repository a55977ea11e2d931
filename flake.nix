{
  description = "A real-time chat server: Socket.IO on thread-per-core io_uring, with durable, exactly ordered rooms";

  inputs.nixpkgs.url = "github:NixOS/nixpkgs/nixos-26.05";

  outputs =
    { self, nixpkgs }:
    let
      inherit (nixpkgs) lib;
      # The server stands on io_uring, so there is nothing to build for other systems.
      systems = [
        "x86_64-linux"
        "aarch64-linux"
      ];
      revision = self.rev or self.dirtyRev or null;
      pkgsFor = lib.genAttrs systems (
        system: nixpkgs.legacyPackages.${system}.extend self.overlays.default
      );
      forAll = f: lib.genAttrs systems (system: f pkgsFor.${system});
    in
    {
      overlays.default = final: _prev: {
        project-yum = final.callPackage ./nixos-module/package.nix { inherit revision; };
        project-yum-image = final.callPackage ./nixos-module/image.nix { inherit revision; };
      };

      packages = forAll (pkgs: {
        default = pkgs.project-yum;
        inherit (pkgs) project-yum;
        image = pkgs.project-yum-image;
      });

      nixosModules = {
        default = self.nixosModules.project-yum;
        project-yum =
          { lib, pkgs, ... }:
          {
            imports = [ ./nixos-module ];
            # So that it works without the overlay, too.
            services.project-yum.package =
              lib.mkDefault
                self.packages.${pkgs.stdenv.hostPlatform.system}.default;
          };
      };

      checks = forAll (
        pkgs:
        let
          module = self.nixosModules.default;
        in
        {
          package = pkgs.project-yum;
          image = pkgs.project-yum-image;
          clippy = pkgs.callPackage ./nixos-module/clippy.nix { };
          fmt = pkgs.callPackage ./nixos-module/fmt.nix { source = self; };
          module-eval = pkgs.callPackage ./nixos-module/eval.nix {
            evaluate =
              settings:
              (nixpkgs.lib.nixosSystem {
                inherit (pkgs.stdenv.hostPlatform) system;
                modules = [
                  module
                  settings
                  { system.stateVersion = "26.05"; }
                ];
              }).config;
          };
          vm = pkgs.testers.runNixOSTest (import ./nixos-module/test.nix { inherit module; });
          cluster = pkgs.testers.runNixOSTest (import ./nixos-module/test-cluster.nix { inherit module; });
        }
      );

      devShells = forAll (pkgs: {
        default = pkgs.callPackage ./nixos-module/shell.nix { };
      });

      formatter = forAll (pkgs: pkgs.nixfmt);
    };
}
