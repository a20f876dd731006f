"""What depends on the platform or the process: folders, forks, the console, timers, files that replace others."""
